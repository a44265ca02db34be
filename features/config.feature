@area.config
Feature: Configuration with rollback
  A peer may change a node's parameters, but a change that is not confirmed in time undoes itself: nobody can
  lock a node out of reach for good, and whatever happens at once, exactly one thing happens.

  @req.CFG-01 @req.CFG-02 @req.CFG-03 @req.CFG-06
  Scenario: a configuration is accepted, takes effect, and is confirmed
    Expected: each answer is an ACK of its own with CONFIG_LOCKED whose ack is the CONFIG's seq. The new difficulty
    is in the next CHALLENGE, the new version in the device's telemetry.

    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 17
    Then the proposal is answered with CONFIG_LOCKED
    And the device's configuration is version 1
    And the device now asks for difficulty 17
    When it confirms the proposal
    Then the confirm is answered with CONFIG_LOCKED
    When it confirms the proposal
    Then the confirm is answered with CONFIG_LOCKED
    And the device's configuration is version 1
    When it proposes version 5 on top of the last, with difficulty 16
    Then the proposal is answered with CONFIG_LOCKED
    And the device's configuration is version 5

  @req.CFG-01 @req.M05 @req.S04 @req.ERR-01
  Scenario Outline: a configuration with <fault> is rejected
    Expected: an ACK with neither flag whose ack is the CONFIG's seq, `config_reject` counts it, the journal tells
    of an ERROR 0x06, nothing changes. Control: the same proposal without the fault is accepted afterwards.

    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes a configuration with <fault>
    Then the proposal is answered without a flag
    And the counter "config_reject" of the device grew by 1
    And the device's configuration is version 0
    And the device's journal has an ERROR entry that says "0x06"
    When it proposes version 1 with difficulty 17
    Then the proposal is answered with CONFIG_LOCKED

    Examples: the chain, the hash, the deadline, the size
      | fault                          |
      | version 0                      |
      | a wrong prev_version           |
      | a wrong prev_hash              |
      | a wrong config_hash            |
      | a deadline of 49 ms            |
      | a deadline of 3601 s           |
      | 103 bytes                      |
      | 105 bytes                      |
      | no bytes                       |

    Examples: the parameters
      | fault                          |
      | difficulty 15                  |
      | difficulty 21                  |
      | a byte that is not zero        |
      | heartbeat_s 0                  |
      | heartbeat_s 31                 |
      | rekey_packets 1023             |
      | rekey_packets 268435457        |
      | rekey_s 9                      |
      | rekey_s 3601                   |
      | mtu_min 511                    |
      | mtu_max 1401                   |
      | mtu_min 1000 and mtu_max 999   |

  @req.CFG-02
  Scenario: a second configuration while one is tentative is rejected
    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 17
    Then the proposal is answered with CONFIG_LOCKED
    When it proposes version 2 on top of the last, with difficulty 18
    Then the proposal is answered without a flag
    And the counter "config_reject" of the device grew by 1
    And the device now asks for difficulty 17

  @req.CFG-04
  Scenario: an unconfirmed configuration undoes itself
    Expected: at its deadline the exact previous configuration is back, the proposer hears of it by an ACK with
    ROLLBACK_READY, a CONFIG entry is in the journal.

    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 18, to be confirmed within 700 ms
    Then the proposal is answered with CONFIG_LOCKED
    And the device now asks for difficulty 18
    And an ACK with ROLLBACK_READY comes after 700 ms
    And the device's configuration is version 0
    And the device now asks for difficulty 16
    And the device's journal has a CONFIG entry that says "deadline"
    When it confirms the proposal
    Then the confirm is answered without a flag

  @req.CFG-05
  Scenario: a ROLLBACK undoes a tentative configuration
    Given the device listens as server
    And a scripted client has a session with the device
    When it asks for a rollback
    Then the rollback is answered without a flag
    And the counter "config_reject" of the device grew by 1
    When it proposes version 1 with difficulty 18
    Then the proposal is answered with CONFIG_LOCKED
    When it asks for a rollback
    Then the rollback is answered with ROLLBACK_READY
    And the device's configuration is version 0
    And the device now asks for difficulty 16

  @req.CFG-03 @needs.kernel
  Scenario: the end of the session that proposed undoes its configuration
    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 18
    Then the proposal is answered with CONFIG_LOCKED
    When the scripted client drops the connection
    Then the device ends the session
    And the device's configuration is version 0
    And the device now asks for difficulty 16

  @req.CFG-03
  Scenario: another session can neither confirm nor roll back
    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 18
    Then the proposal is answered with CONFIG_LOCKED
    When another scripted client confirms the proposal
    Then its confirm is answered without a flag
    When another scripted client asks for a rollback
    Then its rollback is answered without a flag
    And the counter "config_reject" of the device grew by 2
    And the device's configuration is version 1

  @req.S05 @req.CFG-04
  Scenario: confirm, rollback and deadline race, 60 rounds
    Expected: each round has exactly one outcome, the answers and the device's configuration agree on which.

    Given the device listens as server
    And a scripted client has a session with the device
    When 60 configurations are confirmed, rolled back and left to their deadline at once
    Then each of them had exactly one outcome
    And more than one kind of outcome occurred

  @req.AUTH-02 @needs.kernel
  Scenario: remote administration can be turned off
    Given the module is loaded on the server with "remote_admin=0"
    And the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 17
    Then the proposal is answered without a flag
    And the counter "config_reject" of the device grew by 1
    And the counter "not_permitted" of the device grew by 1
    When it asks for a rollback
    Then the rollback is answered without a flag
    And the device's configuration is version 0
    And the session still carries data both ways

  @req.CFG-01 @req.CFG-03 @req.ABI-17 @needs.kernel
  Scenario: the device proposes, the peer accepts
    Expected: a CONFIG with version 1 on top of 0, a right hash, and what it was told. Told to confirm, the device
    repeats the confirm after 1, 2 and 4 s until it is acknowledged.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to propose difficulty 19 within 60 s
    Then the scripted client receives a proposal of version 1 with difficulty 19
    When the scripted client answers it with CONFIG_LOCKED
    Then the device says that its proposal is accepted
    When the device is told to confirm
    Then the scripted client receives the confirm, and again after 1 and 2 s
    When the scripted client answers it with CONFIG_LOCKED
    Then the device says that its proposal is confirmed
    And no confirm comes any more

  @req.CFG-01 @req.CFG-05 @req.ABI-17 @needs.kernel
  Scenario Outline: the device proposes, the peer <answers>
    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to propose difficulty 19 within 60 s
    Then the scripted client receives a proposal of version 1 with difficulty 19
    When the scripted client <answers>
    Then the device says that its proposal is <outcome>

    Examples: other answers
      | answers                                   | outcome     |
      | answers it without a flag                 | rejected    |
      | accepts it, then answers a rollback       | rolled-back |
      | accepts it, then lets the deadline pass   | rolled-back |

  @req.CFG-03 @req.CFG-06 @req.HB-01 @req.ABI-17 @needs.kernel
  Scenario Outline: the <proposer> configures the other end
    Given the device listens as server
    And the device is connected to it over <family>
    When the <proposer> is told to propose difficulty 18 within 60 s
    Then the <proposer> says that its proposal is accepted
    When the <proposer> is told to confirm
    Then the <proposer> says that its proposal is confirmed
    And the configuration of the other end is version 1, confirmed

    Examples: both roles
      | proposer | family |
      | client   | IPv4   |
      | server   | IPv6   |
