@area.ioctl
Feature: The ioctls
  What a program on the same machine may rely on, whatever it asks for.

  @req.ABI-15 @needs.kernel
  Scenario: nobody but root opens /dev/pool
    Given the module is loaded
    Then a user who is not root cannot open /dev/pool
    And root can

  @req.ABI-05
  Scenario: RECV waits 5 s, then gives up
    Given the device listens as server
    And the reference is connected to it over IPv4
    When the server tries to receive what nobody sent
    Then receiving fails with ETIMEDOUT
    And it took 4 to 7 s
    And a message from the client arrives at the server intact

  @req.ABI-07 @req.ABI-08 @req.CLS-01
  Scenario: after its end a session is not active
    Given the device listens as server
    And the reference is connected to it over IPv4
    When the client sends a message of 10 bytes
    And the message waits at the server
    And the client closes the session
    Then the server still reads that message
    And sending to it is refused with ENOTCONN, its channels with ENOENT, closing it with ENOTCONN

  @req.ABI-14 @needs.kernel
  Scenario: a slot is not given out again at once
    Given the device listens as server
    When 5 scripted clients get and close a session one after the other
    Then no two of them had the same index

  @req.ABI-10 @req.HS-10 @needs.kernel
  Scenario: a local connect without a free slot
    Given the device listens as server
    And 64 scripted clients have a session with the device
    Then a connect from the device fails with ENOSPC
    And the device's journal has an ERROR entry that says "no_slot"

  @req.ABI-11 @req.ABI-07 @needs.kernel
  Scenario Outline: CONNECT with <what> is refused with <errno>
    Given the module is loaded
    Then CONNECT with <what> is refused with <errno>

    Examples: requests
      | what               | errno           |
      | another version    | EPROTONOSUPPORT |
      | version 3          | EINVAL          |
      | port 0             | EINVAL          |
      | family 1           | EAFNOSUPPORT    |
      | an IPv6 address as AF_INET | EINVAL  |
      | a reserved byte    | EINVAL          |

  @req.ABI-02 @needs.kernel
  Scenario: LISTEN and STOP
    Given the module is loaded
    Then LISTEN on port 0 is refused with EINVAL
    And STOP succeeds
    When the device starts to listen
    Then LISTEN on port 9253 is refused with EALREADY
    And STOP succeeds
    And LISTEN on port 9254 succeeds

  @req.ABI-17 @needs.kernel
  Scenario Outline: CONTROL with <what> is refused with <errno>
    Given the device listens as server
    And a scripted client has a session with the device
    Then CONTROL with <what> is refused with <errno>
    And the session still carries data both ways

    Examples: requests
      | what                               | errno    |
      | op 0                               | EINVAL   |
      | op 9                               | EINVAL   |
      | a reserved byte                    | EINVAL   |
      | index 64                           | EINVAL   |
      | an index without a session         | ENOTCONN |
      | a proposal of 23 bytes             | EINVAL   |
      | a proposal at a null pointer       | EFAULT   |
      | a proposal out of range            | EINVAL   |
      | a deadline out of range            | EINVAL   |
      | a confirm of nothing               | ENOENT   |
      | a rollback of nothing              | ENOENT   |
