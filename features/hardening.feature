@area.hardening
Feature: What can go wrong does no harm
  The plan's failure modes, provoked on a running device: the right outcome, and not a word of complaint from the
  kernel.

  @req.M01 @req.FRAG-02 @req.ERR-01
  Scenario Outline: a message with <fault> is discarded whole
    Expected: `malformed` counts it, nothing of the message is delivered, later fragments of it neither. Control: a
    sound message of two fragments before and after.

    Given the device listens as server
    And a scripted client has a session with the device
    Then a message of two fragments arrives
    When it sends fragments with <fault>
    Then the counter "malformed" of the device grew by <times>
    And a message of two fragments arrives

    Examples: fragments
      | fault                                  | times |
      | an offset beyond the end               | 1     |
      | an end beyond the end                  | 1     |
      | the largest offset and length          | 1     |
      | a total_len of 0                       | 1     |
      | another total_len than before          | 1     |
      | another channel than before            | 1     |
      | LAST_FRAG not at the end               | 1     |
      | the end without LAST_FRAG              | 1     |
      | no bytes                               | 1     |
      | half a fragment header                 | 1     |
      | other bytes where there are some       | 1     |
      | a late fragment of a discarded message | 2     |

  @req.FRAG-01 @req.FRAG-03 @req.FRAG-05 @req.M01 @req.WIRE-04
  Scenario: fragments in any order, doubled and overlapping, make the message
    Expected: 65535 bytes, in fragments out of order, some twice, some overlapping with the same bytes, arrive
    intact, once.

    Given the device listens as server
    And a scripted client has a session with the device
    When it sends a message of 65535 bytes in overlapping fragments, shuffled and doubled
    Then the device receives it
    When it sends a message of 65400 bytes in a single packet
    Then the device receives it
    And the device discarded nothing

  @req.N06 @req.FRAG-04 @req.ERR-01
  Scenario: a message that is never completed is given up after 5 s
    Expected: `frag_timeout` counts it after 5 s, not before, and an ERROR 0x04 is journalled. 16 messages may be in
    reassembly: with the 17th the one touched least recently goes (`frag_evicted`).

    Given the device listens as server
    And a scripted client has a session with the device
    When it begins 16 messages and completes none
    Then the counters "frag_timeout" and "frag_evicted" of the device grew by 0 and 0
    When it begins 1 message and completes none
    Then the counters "frag_timeout" and "frag_evicted" of the device grew by 0 and 1
    And after 4 s the counter "frag_timeout" of the device grew by 0
    And after 2 s the counter "frag_timeout" of the device grew by 16
    And the device's journal has an ERROR entry that says "0x04"
    And a message of two fragments arrives

  @req.DATA-04 @req.ERR-01 @needs.kernel
  Scenario: a reader that does not read loses nothing
    Expected: with 4096 messages in its queue the device stops reading (`overload`), and goes on when it is read:
    every message arrives, in order.

    Given the device listens as server
    And a scripted client has a session with the device
    When it sends 5000 messages that nobody reads
    Then the counter "overload" of the device grew by 1
    And the device delivers all 5000 of them in order
    And the session still carries data both ways

  @req.S02 @req.WIRE-05 @req.WIRE-06
  Scenario Outline: in state <state> only the types of the table are acted on
    Expected: each of the others is discarded, counted `unexpected_type` (`unknown_type` from 0xD on), and the state
    stays what it was.

    When the device is in state <state> and each type that it does not take comes
    Then each of them was counted, and the device is still in state <state>

    Examples: states
      | state       |
      | LISTENER    |
      | INIT_SENT   |
      | CHALLENGED  |
      | ESTABLISHED |
      | REKEYING    |

  @req.S06 @req.CHAN-01 @req.ABI-08
  Scenario: every channel can be subscribed, and only operations that exist are taken
    Given the device listens as server
    And a scripted client has a session with the device
    When the device subscribes to all 256 channels, then unsubscribes from every odd one
    Then its channels are the even ones, and a message arrives on channel 254 and not on 255
    And operations 0, 4 and 255 are refused with EINVAL

  @req.S03 @needs.kernel
  Scenario: sixteen threads of mixed ioctls
    Given the module is loaded on both guests
    And the device listens as server
    And the device is connected to it over IPv4
    When 16 threads in each guest issue random ioctls for 6 s
    Then none of them hung
    And the device still serves a session

  @req.L06 @needs.kernel
  Scenario: unloading right after loading, and under heartbeats and rekeys
    Given the module is loaded
    When it is loaded and unloaded at once, 10 times
    And it is unloaded in the middle of a rekey with heartbeats every second, 5 times
    Then every unload took at most 5 s
    And the device still serves a session

  @req.N01 @req.HS-09 @needs.kernel
  Scenario: connecting to a silent address
    Expected: ETIMEDOUT after 10 s, no session left.

    When the device tries to connect to an address where nobody answers
    Then connecting fails with ETIMEDOUT
    And it took 9 to 12 s
    And the device lists 0 sessions

  @req.N01 @req.S01 @req.HS-09 @slow
  Scenario: connecting to a peer that accepts and stays silent
    Expected: ETIMEDOUT after the 10 s of the CHALLENGE, 20 s at most in all; the same when it sends a byte a second.

    When the device tries to connect to a peer that says nothing
    Then connecting fails with ETIMEDOUT
    And it took 9 to 21 s
    When the device tries to connect to a peer that says one byte a second
    Then connecting fails with ETIMEDOUT
    And it took 9 to 21 s
    And the device lists 0 sessions

  @req.S01 @req.HS-09 @slow
  Scenario: slow clients are given up, and delay nobody
    Expected: silent 10 s, one byte a second 10 s, after a CHALLENGE 30 s; an honest client is served meanwhile.

    Given the device listens as server
    When clients stay silent, send a byte a second, and stop after their CHALLENGE
    Then a scripted client that keeps to the rules gets a session
    And they are dropped after 10, 10 and 30 s

  @req.N03 @req.HB-02 @needs.kernel @slow
  Scenario: a peer that vanishes without a word
    Expected: noticed 90 to 95 s after its last packet, the slot is free, a DISCONNECT is journalled.

    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the wire to the scripted client is cut
    Then the device drops the session after 85 to 95 s
    And the device's journal has a DISCONNECT entry that says "nothing heard"
