@area.integrity
Feature: INTEGRITY packets
  Each end challenges the other to show that it has the session's keys, and holds what the other says of the session
  against its own view. Whoever fails is no longer trusted, and the journal says why.

  @req.INT-01
  Scenario: the device answers a challenge
    Expected: c, c sealed under pool-integrity-key with the nonce SHA-256(1 ‖ c)[0:12], and the MAC of 1 ‖ c.

    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client challenges the device
    Then the answer is that of a server
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client changes to the new keys
    And the scripted client challenges the device
    Then the answer is that of a server

  @req.INT-01
  Scenario: the device answers a challenge as client
    Given the device has a session with a scripted server
    When the scripted server challenges the device
    Then the answer is that of a client

  @req.INT-01 @req.INT-02 @req.ABI-17
  Scenario: the device challenges and reports
    Expected: a challenge with REQUIRE_ACK and a report of its state. A right answer keeps the trust.

    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the device is told to challenge
    Then the scripted client receives a challenge and a report that is true
    When the challenge is answered rightly
    Then the device trusts the peer
    And the session still carries data both ways
    And the device discarded nothing

  @req.INT-01 @req.JRN-04
  Scenario Outline: the device is answered <how>
    Expected: the peer is untrusted, `integrity_fail` counts it, an INTEGRITY entry is written, the session goes on.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to challenge
    Then the scripted client receives a challenge and a report that is true
    When the challenge is answered <how>
    Then the device calls the peer untrusted
    And the counter "integrity_fail" of the device grew by 1
    And the device's journal says why in an entry INTEGRITY
    And the session still carries data both ways

    Examples: wrong answers
      | how                                     |
      | with a wrong MAC                        |
      | with a wrong tag                        |
      | as if it were the server                |
      | nothing, but acknowledges the challenge |

  @req.RK-06
  Scenario: a change of keys cancels a challenge
    Expected: no alarm 6 s after a challenge that was acknowledged and never answered, because the keys changed.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to challenge
    Then the scripted client receives a challenge and a report that is true
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client changes to the new keys
    Then the device still trusts the peer after 6 s

  @req.INT-02
  Scenario Outline: a report that says <lie> is a contradiction
    Expected: the peer is untrusted, the journal says so, the session goes on. Control: a true report before it
    changes nothing.

    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client reports the truth
    Then the device trusts the peer
    When the scripted client reports <lie>
    Then the device calls the peer untrusted
    And the counter "integrity_fail" of the device grew by 1
    And the device's journal says why in an entry INTEGRITY
    And the session still carries data both ways

    Examples: lies
      | lie                                    |
      | that it received what was never sent   |
      | that it received more packets than sent |
      | that it received nothing of ours       |
      | that it sent more than it did          |
      | that it sent less than came            |
      | another seq as its last                |
      | another epoch                          |
      | fewer packets received than before     |

  @req.INT-02 @req.JRN-03
  Scenario: a report with another journal than the copy is a contradiction
    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to ask for the journal
    And the scripted client sends 10 entries of a sound journal
    And the scripted client reports the truth
    Then the device trusts the peer
    When the scripted client reports an older head of its journal
    Then the device calls the peer untrusted
    And the device's journal says why in an entry INTEGRITY

  @req.INT-01 @req.ERR-01
  Scenario Outline: an INTEGRITY packet <fault> is discarded
    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the scripted client utters an INTEGRITY packet <fault>
    Then the counter "<counter>" of the device grew by 1
    And the device trusts the peer
    And the session still carries data both ways

    Examples: faults
      | fault                           | counter     |
      | without bytes                   | malformed   |
      | with op 0                       | malformed   |
      | with op 4                       | malformed   |
      | with a challenge of 15 bytes    | malformed   |
      | with a challenge of 17 bytes    | malformed   |
      | with an answer of 80 bytes      | malformed   |
      | with a report of 72 bytes       | malformed   |
      | that answers what was not asked | unsolicited |
      | that challenges with the device's own challenge | malformed |

  @req.INT-01
  Scenario: a flood of challenges is limited
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client challenges the device 200 times at once
    Then at most 40 challenges are answered
    And the counter "integrity_limited" of the device grew
    And the session still carries data both ways

  @req.INT-01 @req.INT-02 @req.ABI-17
  Scenario: two devices challenge each other under traffic
    Given the device listens as server
    And the device is connected to it over IPv4
    When both ends exchange messages of 1, 100, 1304, 5000 and 20000 bytes
    And both ends are told to challenge, 5 times
    Then every message arrived intact and in order
    And both ends trust each other
    And neither end discarded a packet
