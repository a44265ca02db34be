@area.mtu
Feature: MTU discovery
  Each end finds out how large its packets may be, by probes that are as large as the packets they stand for. No
  answer can make a session use sizes outside 512..1400.

  @req.MTU-01
  Scenario: a probe is answered
    Expected: a DISCOVER without REQUIRE_ACK whose plaintext is the size alone, for the smallest and the largest.

    Given the device listens as server
    And a scripted client has a session with the device
    When it probes with a packet of 1400 bytes
    Then the probe is answered
    When it probes with a packet of 512 bytes
    Then the probe is answered
    And the device discarded nothing

  @req.MTU-01 @req.M07 @req.ERR-01
  Scenario Outline: a probe with <fault> is not answered
    Expected: `malformed` counts it, it is acknowledged, mtu stays in 512..1400. Control: a sound probe is answered.

    Given the device listens as server
    And a scripted client has a session with the device
    When it probes with a packet of 800 bytes
    Then the probe is answered
    When it probes with <fault>
    Then the counter "malformed" of the device grew by 1
    And the probe is acknowledged, not answered
    And the session's mtu is within 512..1400
    And the session still carries data both ways

    Examples: sizes that are none
      | fault                          |
      | no bytes                       |
      | a probe_size of 0              |
      | a probe_size of 1              |
      | a packet of 511 bytes          |
      | a packet of 1401 bytes         |
      | a probe_size of 65535          |
      | a size that is not its own     |
      | padding that is not zero       |

  @req.MTU-02 @req.MTU-03
  Scenario: the device probes 1400 bytes first
    Expected: 1 s after the establishment a probe of 1400 bytes; once it is answered the search is over.

    Given the device listens as server
    And a scripted client has a session with the device
    Then a probe of 1400 bytes comes
    When the scripted client answers it
    Then no probe comes for 3 s
    And the session's mtu is 1400

  @req.MTU-02 @req.MTU-03 @req.MTU-04
  Scenario: the device searches for the largest size that passes
    Expected: midpoints between what passed and what did not, 2 s for each that is not answered, one a second at
    most; the result is the lower bound, and data uses it.

    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client answers probes of up to 1000 bytes only
    Then the probes are 1400, 956, 1178, 1067, 1011, 983 and 997 bytes
    And the session's mtu is 997
    When the device is given a message of 2000 bytes
    Then the scripted client receives fragments of at most 893 bytes

  @req.MTU-03
  Scenario Outline: an answer <which> changes nothing
    Expected: `unsolicited` counts it, mtu stays.

    Given the device listens as server
    And a scripted client has a session with the device
    Then a probe of 1400 bytes comes
    When the scripted client answers with a size of <size>
    Then the counter "<counter>" of the device grew by 1
    And the session's mtu is 1400

    Examples: answers that do not fit
      | which                      | size            | counter     |
      | of another size            | 1399            | unsolicited |
      | of 0                       | 0               | unsolicited |
      | of 65535                   | 65535           | unsolicited |
      | of three bytes             | 1400 in 3 bytes | malformed   |
      | without bytes              | no bytes        | malformed   |

  @req.MTU-02 @req.ABI-17
  Scenario: two devices find 1400
    Given the device listens as server
    And the device is connected to it over IPv4
    When the client is told to probe its path
    Then both ends have an mtu of 1400 after 3 s
    And neither end discarded a packet

  @req.CFG-01 @req.MTU-02
  Scenario: configured bounds hold at once
    Expected: with mtu_max 900 the session's mtu is 900 from the moment the configuration is in force, and the
    search begins there.

    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes mtu_min 600 and mtu_max 900
    Then the proposal is answered with CONFIG_LOCKED
    And the session's mtu is 900
    And a probe of 900 bytes comes
