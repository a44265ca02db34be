@area.lifecycle @needs.kernel
Feature: Module life cycle
  A transport in the kernel must come and go without a trace, at any moment, whatever its sessions do.

  @req.L02
  Scenario: loading twice is refused
    Given the module is loaded
    When the module is loaded again
    Then loading fails with EEXIST
    And the device still serves a session

  @req.N04
  Scenario: a listening module unloads and leaves its port free
    Given the module is loaded
    And the device listens as server
    When the module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool
    And connecting to its port is refused
    When the module is loaded once more
    Then the device still serves a session

  @req.N04
  Scenario: an open control file pins the module
    Expected: while /dev/pool is open, unloading is refused and harms nothing; after the last close it works.

    Given the module is loaded
    And /dev/pool is held open
    When unloading the module is tried
    Then unloading is refused
    And the device still serves a session
    When /dev/pool is released
    And the module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool

  @req.L01 @req.CLS-01
  Scenario Outline: unloading with <count> live sessions over <family> ends them
    Expected: gone within 5 s, every peer is told by an authentic CLOSE, the module loads again.

    Given the module is loaded
    And the device listens as server
    And <count> scripted clients have a session with the device over <family>
    When the module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool
    And every scripted client received an authentic CLOSE
    When the module is loaded once more
    Then the device still serves a session

    Examples: sessions
      | count | family |
      | 1     | IPv4   |
      | 8     | IPv6   |

  @req.L01
  Scenario: unloading one of two modules under traffic ends the session at both
    Expected: gone within 5 s in the middle of what the client sends, and the client learns of it.

    Given the device listens as server
    And the device is connected to it over IPv4
    And the client sends messages of 1000 bytes without pause
    When the server's module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool
    And the client no longer lists the session

  @req.L05
  Scenario Outline: unloading while a handshake waits <where> does not hang
    Given the module is loaded
    And the device listens as server
    When a scripted client stops <where>
    And the module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool

    Examples: points of a handshake
      | where               |
      | before its INIT     |
      | inside its INIT     |
      | after its CHALLENGE |
      | inside its RESPONSE |

  @req.L04
  Scenario: reading /proc/pool while the module unloads is harmless
    Given the module is loaded
    And the device listens as server
    And a scripted client has a session with the device
    When /proc/pool is read in a loop while the module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool
    And reading met nothing but missing files

  @req.L02
  Scenario: twenty loads and unloads leave no memory behind
    Expected: after a warm-up, the kernel's slab memory does not grow with the number of cycles.

    Given the module is loaded
    When it is unloaded and loaded 20 times
    Then unreclaimable slab memory grew by less than 256 KiB

  @req.L01 @req.L02 @req.L05 @req.L06 @slow
  Scenario: fifty loads and unloads under traffic, at any moment
    One guest keeps connecting, sending, rekeying, probing and configuring without pause; the other's module comes and
    goes at random moments soon after it began to listen. Expected: each unload within 5 s, a quiet console even
    6 s after the last one (no timer of a former instance fires), no memory lost where the kernel can tell.

    Given the module is loaded on both guests
    And the client's guest connects and works without pause
    When the server's module is loaded and unloaded 50 times, each time at a random moment
    Then every unload took at most 5 s
    And after 6 s more the server's guest has lost no memory

  @req.M02
  Scenario Outline: session index <index> is refused by every ioctl
    Given the module is loaded
    When each session ioctl is issued with index <index>
    Then each is refused with EINVAL or ENOTCONN or ENOENT
    And the device still serves a session

    Examples: out of range or stale
      | index      |
      | 0          |
      | 63         |
      | 64         |
      | 2147483648 |
      | 4294967295 |

  @req.ABI-08 @req.ABI-09
  Scenario: unknown and ill-formed ioctls are refused
    Expected: an unknown command gives ENOTTY, a bad pointer EFAULT, a bad channel operation EINVAL.

    Given the module is loaded
    And the device listens as server
    And the reference is connected to it over IPv4
    Then an unknown ioctl is refused with ENOTTY
    And a null pointer is refused with EFAULT
    And channel operation 4 is refused with EINVAL
    And the device still serves a session
