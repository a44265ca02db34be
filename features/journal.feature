@area.journal
Feature: The journal
  What a node did stands in a chain of entries, each of which hashes the one before it; a peer that keeps a copy
  notices when the past is changed.

  @req.JRN-01 @req.JRN-04 @req.ABI-23 @req.ABI-20 @needs.kernel
  Scenario: what happens is journalled, in a chain that holds
    Expected: connect, disconnect, error, config and rekey events with who and why. Every hash can be recomputed
    from what /proc/pool/journal shows.

    Given the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 17
    Then the proposal is answered with CONFIG_LOCKED
    When the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the scripted client changes to the new keys
    And it sends DATA with a wrong hmac
    Then the device ends the session
    And the device's journal has a CONNECT entry that says "10.253.0.1"
    And the device's journal has a CONFIG entry that says "accepted"
    And the device's journal has a REKEY entry that says "epoch 1"
    And the device's journal has an ERROR entry that says "0x01 10.253.0.1"
    And the device's journal has a DISCONNECT entry that says "10.253.0.1"
    And the device's journal has a CONFIG entry that says "session ended"
    And every entry's hash follows from the one before it
    And the status shows as many entries as the journal has

  @req.ERR-01
  Scenario: errors of one category are journalled ten times a second at most
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client sends the same packet 300 times in a burst
    Then at most 11 ERROR entries a second were written for it
    And the counters "replay_drops" and "errors_not_journalled" tell of all of them

  @req.JRN-02 @req.M06
  Scenario: the ring overwrites the oldest entries and still verifies
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client proposes and rolls back 1500 configurations
    Then the journal keeps the latest 1024 entries
    And the journal_full counter tells how many were overwritten
    And every entry's hash follows from the one before it
    When the scripted client asks for the journal
    Then it receives the whole journal in order

  @req.JRN-03
  Scenario: a peer that asks receives the journal and what comes after it
    Expected: before it asks, nothing. Then everything from the oldest entry on, and each new one. Sending it makes
    no entries.

    Given the device listens as server
    And a scripted client has a session with the device
    When another session makes an entry
    Then no JOURNAL packet comes for 1 s
    When the scripted client asks for the journal
    Then it receives the whole journal in order
    And no JOURNAL packet comes for 1 s
    When another session makes an entry
    Then it receives the new entry, which is a CONNECT that says "as server"
    And it receives the whole journal in order

  @req.JRN-03 @req.ERR-01
  Scenario Outline: a JOURNAL <fault> is discarded
    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the scripted client utters a JOURNAL <fault>
    Then the counter "<counter>" of the device grew by 1
    And the session still carries data both ways

    Examples: faults
      | fault                              | counter     |
      | without JOURNAL_SYNC               | malformed   |
      | that is empty and wants no ACK     | malformed   |
      | with a count that is too high      | malformed   |
      | with a count that is too low       | malformed   |
      | with a detail of 257 bytes         | malformed   |
      | of 41 bytes                        | malformed   |
      | with entries that nobody asked for | unsolicited |

  @req.AUTH-02 @needs.kernel
  Scenario: without remote administration nobody reads the journal
    Given the module is loaded on the server with "remote_admin=0"
    And the device listens as server
    And a scripted client has a session with the device
    When the scripted client asks for the journal
    Then no JOURNAL packet comes for 1 s
    And the counter "not_permitted" of the device grew by 1

  @req.JRN-03 @needs.kernel
  Scenario: the device keeps a copy of its peer's journal
    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to ask for the journal
    And the scripted client sends 10 entries of a sound journal
    And the scripted client sends 5 entries of a sound journal
    Then the device's copy has 15 entries and it trusts the peer

  @req.JRN-03 @req.INT-02 @needs.kernel
  Scenario Outline: the device notices <what>
    Expected: `journal_broken` counts it, the peer is untrusted, an INTEGRITY entry says so, nothing of it is
    taken over. Control: the sound part before it was taken.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device is told to ask for the journal
    And the scripted client sends 10 entries of a sound journal
    Then the device's copy has 10 entries and it trusts the peer
    When the scripted client then sends <what>
    Then the device calls the peer untrusted
    And the counter "journal_broken" of the device grew by 1
    And the device's journal has an INTEGRITY entry that says "journal:"
    And the device's copy still has 10 entries

    Examples: breaks and forks
      | what                                |
      | an entry whose hash is wrong        |
      | another entry in place of one       |
      | another hash before the next entry  |
      | an entry that leaves out one        |
      | a first entry on top of something   |
