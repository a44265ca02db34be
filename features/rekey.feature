@area.rekey
Feature: Replacing a session's keys
  A key serves for so many packets and so long, then both ends agree on another one without losing anything.
  Nobody can make a session go on with keys that one end does not have.

  @req.RK-02 @req.RK-06 @req.ABI-17
  Scenario Outline: the <initiator> replaces the keys between <client> and <server> over <family>
    Expected: after each of two rekeys both ends count it and are in the same epoch. Messages pass both ways,
    nothing is discarded on the way.

    Given the <server> listens as server
    And the <client> is connected to it over <family>
    When the <initiator> is told to rekey
    Then both ends have completed 1 rekey
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact
    When the <initiator> is told to rekey
    Then both ends have completed 2 rekeys
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact
    And neither end discarded a packet

    Examples: pairings
      | client    | server    | family | initiator |
      | device    | device    | IPv4   | client    |
      | device    | device    | IPv6   | server    |

  @req.RK-03
  Scenario: both ends propose at once
    Expected: told to rekey in the same moment, again and again, both ends always agree on the keys.

    Given the device listens as server
    And the device is connected to it over IPv4
    When both ends are told to rekey at once, 10 times
    Then both ends are in the same epoch, which is at least 10
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact
    And neither end discarded a packet

  @req.RK-01 @needs.kernel
  Scenario: a key is replaced after as many packets as configured
    Given the module is loaded on the server with "rekey_packets=1024"
    And the device listens as server
    And the device is connected to it over IPv4
    When the client sends 25 messages of 65535 bytes
    Then the server has completed at least 1 rekey
    And all of them arrived

  @req.RK-02 @req.RK-04 @req.SEAL-02
  Scenario: the device accepts a proposal
    Expected: a proposal is answered by an accept under the old keys, then the device uses the new ones. What
    the proposer sent under the old keys before it saw that is still good, until it uses the new ones.

    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client still uses the old keys for a message
    Then the device receives it
    When the scripted client changes to the new keys
    Then the session still carries data both ways
    And the device has completed 1 rekey
    When the scripted client uses the old keys for a message
    Then the device ends the session
    And the counter "auth_fail" of the device grew by 1

  @req.RK-02
  Scenario: the device proposes
    Expected: told to, it proposes the next epoch. Until that is accepted its messages are held, not lost; after
    it they come under the new keys.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to rekey
    Then the scripted client receives a proposal for epoch 1
    And the device's session is REKEYING
    When the device is given a message of 500 bytes
    Then nothing but acknowledgements comes for 1 s
    When the scripted client accepts the proposal
    Then the scripted client receives that message under the new keys
    And the session still carries data both ways
    And the device has completed 1 rekey

  @req.CLS-01 @req.RK-02
  Scenario: a close waits for what a rekey holds back
    Expected: a message that was sent before the close, and held, comes under the new keys; then the CLOSE.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to rekey
    Then the scripted client receives a proposal for epoch 1
    When the device is given a message of 500 bytes
    And the device begins to close the session
    Then nothing but acknowledgements comes for 1 s
    When the scripted client accepts the proposal
    Then the scripted client receives that message under the new keys
    And the scripted client receives an authentic CLOSE

  @req.RK-05
  Scenario: a repeated proposal that was accepted is ignored
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client repeats its proposal
    And the scripted client changes to the new keys
    Then the session still carries data both ways
    And the device has completed 1 rekey
    And the device discarded nothing

  @req.RK-05
  Scenario: a proposal that nobody answers is repeated
    Expected: the same plaintext again 5 s after the first, with a new seq.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to rekey
    Then the scripted client receives a proposal for epoch 1
    And the same proposal comes again after 5 s
    When the scripted client accepts the proposal
    Then the session still carries data both ways

  @req.C05 @req.RK-05 @slow
  Scenario: a peer that never accepts
    Expected: the proposal comes again 5, 10 and 20 s after the first; 60 s after it, CLOSE 0x07. Control: the
    peer's data is delivered until then.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to rekey
    Then the scripted client receives a proposal for epoch 1
    And the same proposal comes again after 5, 10 and 20 s
    And the device closes the session with code 0x07 after 60 s

  @req.RK-04 @slow
  Scenario: a peer that never uses the new keys
    Expected: 60 s after the device accepted, CLOSE 0x07.

    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client reads with the new keys and sends nothing
    Then the device closes the session with code 0x07 after 60 s

  @req.RK-03
  Scenario Outline: proposals cross and the scripted client's key is <order>
    Expected: the lower key wins: the device <does>.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to rekey
    Then the scripted client receives a proposal for epoch 1
    When the scripted client proposes new keys of its own, with the <order> public key
    Then the device <does>
    And the session still carries data both ways
    And the device has completed 1 rekey

    Examples: both orders
      | order  | does                         |
      | lower  | accepts the client's         |
      | higher | acknowledges and ignores it  |

  @req.RK-03 @req.KEY-01 @req.RK-02
  Scenario Outline: a rekey with <key> ends the session
    Expected: CLOSE 0x07. Control: the session carried data before.

    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When a rekey is spoiled: the scripted client <does> with <key>
    Then the device closes the session with code 0x07

    Examples: keys that give no secret
      | does                      | key                   |
      | proposes new keys         | an all-zero key       |
      | proposes new keys         | a key of low order    |
      | accepts a proposal        | an all-zero key       |
      | proposes while the device does | the device's own key |

  @req.RK-06 @req.RK-01
  Scenario Outline: a REKEY with <fault> is discarded
    Expected: `malformed` counts it, the keys stay, the session goes on.

    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the scripted client utters a REKEY with <fault>
    Then the counter "malformed" of the device grew by 1
    And the session still carries data both ways
    And the device has completed 0 rekeys

    Examples: faults
      | fault                            |
      | the epoch in force               |
      | an epoch too far ahead           |
      | stage 0                          |
      | stage 3                          |
      | a byte that is not zero          |
      | 39 bytes                         |
      | 41 bytes                         |
      | no bytes                         |
      | an accept that nothing asked for |

  @req.RK-05 @req.RK-06
  Scenario: a proposal of the epoch before is discarded
    Expected: once the new keys are in use, an old proposal sealed anew counts `malformed`.

    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client changes to the new keys
    And the scripted client utters a REKEY with the epoch in force
    Then the counter "malformed" of the device grew by 1
    And the session still carries data both ways
