@area.raw @needs.kernel
Feature: Raw IP
  Over IP protocol 253 a session is as reliable and ordered as over TCP, whatever the network does.

  # -- sessions

  @req.TRN-03
  Scenario Outline: the <client> talks to the <server> over raw IP
    Expected: a session without any TCP, messages of every size both ways, nothing discarded.

    Given all nodes speak over raw
    And the <server> listens as server
    And the <client> is connected to it over IPv4
    Then both ends list the session as ESTABLISHED with the same session id
    And neither end discarded a packet
    When both ends exchange messages of 1, 16, 415, 416, 417, 1000, 30000 and 65535 bytes
    Then every message arrives intact and in order at last
    And at most 32 seqs of either end were in flight at once
    And every packet between them was raw IP

    Examples: pairings
      | client    | server    |
      | device    | device    |
      | reference | device    |
      | device    | reference |

  @req.TRN-03 @req.CHAN-01
  Scenario: channels over raw IP
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    When the server subscribes channels 3 and 9
    Then a message on channel 3 arrives at the server
    When the server unsubscribes channel 3
    Then a message on channel 3 does not arrive at the server

  @req.TRN-04 @req.TRN-06 @req.FRAG-05 @req.SEAL-06
  Scenario Outline: messages from <client> to <server> while the wire <does>
    Expected: every message arrives once, whole and in order, both ways; what is sent again is the same, byte for byte.

    Given all nodes speak over raw
    And the <server> listens as server
    And the <client> is connected to it over IPv4
    And the wire <does>
    When both ends exchange messages of 1, 400, 5000, 20000 and 64 bytes
    Then every message arrives intact and in order at last
    And every raw packet that was sent again was the same, byte for byte
    And at most 32 seqs of either end were in flight at once

    Examples: troubles
      | client    | server    | does                                              |
      | device    | device    | loses every fifth raw packet                      |
      | device    | device    | flips a bit in every eighth raw packet            |
      | device    | device    | loses, doubles, reorders and corrupts raw packets |
      | reference | device    | loses, doubles, reorders and corrupts raw packets |
      | device    | reference | loses, doubles, reorders and corrupts raw packets |

  @req.TRN-04 @req.TRN-06
  Scenario Outline: messages from <client> to <server> when nothing is lost but the wire <does>
    Given all nodes speak over raw
    And the <server> listens as server
    And the <client> is connected to it over IPv4
    And the wire <does>
    When both ends exchange messages of 1, 400, 5000, 20000 and 64 bytes
    Then every message arrives intact and in order at last
    And at most 32 seqs of either end were in flight at once

    Examples: troubles
      | client    | server    | does                                       |
      | device    | device    | doubles every third raw packet             |
      | device    | device    | lets others overtake every fourth raw packet |

  # -- resending

  @req.TRN-04
  Scenario: what is not acknowledged is sent again, the same
    Expected: with a round-trip time measured, after 0.2, 0.4, 0.8 and 1.6 s; DF is clear from the fourth copy on.

    Given all nodes speak over raw
    And the module is loaded on the client with "transport=raw heartbeat_sec=1"
    And the device listens as server
    And the device is connected to it over IPv4
    And the client has measured the round trip
    When the first 4 copies of a message from the client are lost
    Then the server receives that message at last
    And it was sent 5 times, the same each time, with pauses of 0.2, 0.4, 0.8, 1.6 s
    And DF was set in the first 3 of them and clear in the others

  @req.TRN-04
  Scenario: before a round trip is measured a packet waits for 1 s
    Given all nodes speak over raw
    And the module is loaded on the client with "transport=raw heartbeat_sec=30"
    And the device listens as server
    And the device is connected to it over IPv4
    When the first 2 copies of a message from the client are lost
    Then the server receives that message at last
    And it was sent 3 times, the same each time, with pauses of 1, 2 s

  @req.TRN-04 @slow
  Scenario: a peer that is gone
    Expected: eight copies, the last 10 s before the session ends with `timeout`. Control: data passed before.

    Given all nodes speak over raw
    And the module is loaded on the client with "transport=raw heartbeat_sec=30"
    And the device listens as server
    And the device is connected to it over IPv4
    Then a message from the client arrives at the server intact
    When the wire is cut at the server
    And the client sends a message into nothing
    Then the client gives up after 50 to 75 s

  # -- the handshake

  @req.TRN-08 @req.SEQ-03
  Scenario Outline: <lost> of the handshake is lost
    Expected: the handshake is done all the same, with one session.

    Given all nodes speak over raw
    And the device listens as server
    And <lost> of the handshake is to be lost
    When the device makes a timed connection to it
    Then they were lost
    And both ends list the session as ESTABLISHED with the same session id
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact
    And the server lists 1 session

    Examples: packets
      | lost                    |
      | the first INIT          |
      | the first two INITs     |
      | the first CHALLENGE     |
      | the first RESPONSE      |
      | the first two RESPONSEs |
      | the first ACK           |

  @req.TRN-08 @req.SEQ-03 @req.HS-07
  Scenario: a RESPONSE that comes again
    Expected: answered by the handshake ACK as it was, and no second session.

    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    When the scripted client acknowledges everything
    And the scripted client sends its RESPONSE again
    Then it receives the same handshake ACK again
    When the scripted client sends its RESPONSE again
    Then it receives the same handshake ACK again
    And the device lists 1 session
    And the session still carries data both ways

  @req.HS-14
  Scenario: a CHALLENGE with a wrong echo
    Expected: discarded and counted `spoofed`; the repeated INIT gets a good one.

    Given all nodes speak over raw
    And the device listens as server
    And the echo in the first CHALLENGE is altered on the wire
    When the device makes a timed connection to it
    Then they were lost
    And the counter "spoofed" of the client grew by 1
    And a message from the client arrives at the server intact

  @req.HS-14
  Scenario: a CHALLENGE carries the echo of its INIT
    Given all nodes speak over raw
    And the device listens as server
    When a scripted client sends its INIT over raw IP
    Then CHALLENGE and refusals carry the client's echo

  @req.HS-13 @req.HS-02
  Scenario Outline: a RESPONSE with <misdeed> is met by silence
    Expected: counted `<counter>`, no answer, no session. Control: one without a fault gets a session.

    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    When a scripted client sends a RESPONSE with <misdeed>
    Then the scripted client hears nothing for 2 s
    And the counter "<counter>" of the device grew by 1
    And the device lists 1 session

    Examples: misdeeds
      | misdeed                 | counter        |
      | a wrong puzzle solution | bad_puzzle     |
      | a wrong session id      | bad_session_id |
      | a wrong hmac            | auth_fail      |
      | a wrong proof           | bad_proof      |
      | one byte too many       | malformed      |

  @req.TRN-03 @req.HS-09
  Scenario: nobody answers over raw IP
    Expected: INIT at 0, 0.5 and 1.5 s, ETIMEDOUT after 10 s. Control: before, a session came about.

    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    And the wire loses all raw packets
    When the device tries to connect to it over IPv4
    Then connecting fails with ETIMEDOUT
    And connecting took 9.9 to 14 s

  @req.TRN-03
  Scenario: INIT is repeated twice
    Given all nodes speak over raw
    And the device listens as server
    And the wire loses all raw packets
    When the device tries to connect to it over IPv4
    Then connecting fails with ETIMEDOUT
    And the client sent 3 INITs, with pauses of 0.5, 1 s

  @req.TRN-03
  Scenario: raw IP is IPv4
    Expected: EAFNOSUPPORT for an IPv6 peer. Control: over IPv4 the same nodes get a session.

    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    When the device tries to connect to it over IPv6
    Then connecting fails with EAFNOSUPPORT

  # -- AUTO

  @req.TRN-05
  Scenario: AUTO takes raw IP where it is answered
    Given all nodes speak over auto
    And the device listens as server
    When the device makes a timed connection to it
    Then the session is over raw
    And the client sent exactly 1 INIT
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact

  @req.TRN-05
  Scenario: AUTO falls back to TCP after 2.5 s
    Given all nodes speak over auto
    And the device listens as server
    And the wire loses all raw packets
    When the device makes a timed connection to it
    Then the session is over tcp
    And connecting took 2.4 to 6 s
    And the client sent 3 INITs, with pauses of 0.5, 1 s
    And a message from the client arrives at the server intact

  @req.TRN-05
  Scenario: AUTO goes over TCP to an IPv6 peer
    Given all nodes speak over auto
    And the device listens as server
    When the device connects to it over IPv6
    Then the session is over tcp
    And a message from the client arrives at the server intact

  @req.TRN-05
  Scenario: raw IP needs CAP_NET_RAW
    Expected: without it, EPERM. Control: with it the same nodes get a session.

    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    When a process without CAP_NET_RAW has the device connect
    Then that is refused with EPERM

  @req.TRN-05
  Scenario: AUTO without CAP_NET_RAW is TCP
    Given all nodes speak over auto
    And the device listens as server
    When a process without CAP_NET_RAW has the device connect
    Then that succeeds
    And the client sent exactly 0 INIT

  # -- datagrams that are not what they should be

  @req.TRN-03
  Scenario: a datagram of a session from another address
    Expected: discarded, count `spoofed`; the session goes on.

    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When a datagram with that session's DATA comes from another address
    Then the counter "spoofed" of the device grew by 1
    And the session still carries data both ways

  @req.TRN-03 @req.TRN-06 @req.SEAL-06 @req.SEAL-07
  Scenario Outline: a datagram <how>
    Expected: discarded, count `<counter>`; the session goes on. Control: it carried data before.

    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the scripted client sends a datagram <how>
    Then the counter "<counter>" of the device grew by 1
    And the session still carries data both ways

    Examples: datagrams
      | how                       | counter         |
      | that is a byte too long   | malformed       |
      | that is a byte too short  | malformed       |
      | of 79 bytes               | malformed       |
      | of an unknown session     | unknown_session |
      | with a wrong hmac         | auth_fail       |
      | with a wrong tag          | decrypt_fail    |
      | 64 ahead of its turn      | out_of_window   |

  @req.TRN-04
  Scenario: what comes out of order is put in order
    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    When the scripted client sends 64 messages, the last one first
    Then the device receives them in the order of their seqs
    And the device discarded nothing

  @req.TRN-06
  Scenario: a packet that was received already is acknowledged again
    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    When the scripted client sends the same DATA 4 times
    Then the device receives it
    And the device acknowledged it each time within 50 ms
    And the counter "duplicate" of the device grew by 3
    And the session still carries data both ways

  @req.DATA-04 @req.TRN-06
  Scenario: a full receive queue
    Expected: 4096 messages wait; one more is discarded without an ack, count `overload`, and taken when there is room.

    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    When the scripted client fills the device's receive queue
    And the scripted client sends one message more
    Then that one is not acknowledged
    And the counter "overload" of the device grew by 1
    When a message is read and that one sent again
    Then the device has every message

  # -- the end

  @req.CLS-01
  Scenario: closing waits for what was sent
    Expected: all of it arrives, then both ends forget the session.

    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    And the wire delays raw packets by 0.2 s
    When the client sends 40000 bytes in messages and closes at once
    Then all of them arrive at last
    And neither end lists a session within 15 s
    And the client sent CLOSE 1 times, the same each time

  @req.CLS-01
  Scenario: a CLOSE that nobody acknowledges is sent three times
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    Then a message from the client arrives at the server intact
    When the wire is cut at the server
    And the client closes the session
    Then the client forgets the session within 15 s
    And the client sent CLOSE 3 times, the same each time

  @req.L01 @req.CLS-01
  Scenario: unloading with a session over raw IP
    Expected: gone within 5 s in the middle of what the client sends, and the client learns of it.

    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    And the client sends messages of 1000 bytes without pause
    When the server's module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool
    And the client no longer lists the session

  @req.L01
  Scenario: unloading when nobody hears of it
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    When the wire is cut at the client
    And the server sends 100000 bytes in messages
    And the server's module is unloaded
    Then it is gone within 5 s with /dev/pool and /proc/pool
    And the wire is mended

  # -- rekey

  @req.RK-02 @req.RK-06
  Scenario: the keys are replaced while the wire is bad
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    When the client is told to rekey
    Then both ends have completed 1 rekey
    And neither end discarded a packet
    When the wire loses, doubles, reorders and corrupts raw packets
    And both ends exchange messages of 400, 20000 and 64 bytes
    And both ends are told to rekey at once, 3 times
    Then both ends are in the same epoch, which is at least 3
    And every message arrives intact and in order at last
    And every raw packet that was sent again was the same, byte for byte

  @req.RK-03
  Scenario: both ends propose at once over raw IP
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    When both ends are told to rekey at once, 10 times
    Then both ends are in the same epoch, which is at least 10
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact
    And neither end discarded a packet

  @req.RK-02
  Scenario: nothing is proposed while something is in flight
    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the scripted client acknowledges everything
    And the device is given a message of 300 bytes
    And the device is told to rekey
    Then it is not proposed before the scripted client acknowledges that message
    And the scripted client receives a proposal for epoch 1
    When the scripted client accepts the proposal
    Then the session still carries data both ways
    And the device has completed 1 rekey

  @req.RK-02 @req.RK-04
  Scenario: after its accept the device waits for the new keys
    Expected: until a packet under the new keys comes it sends ACKs and its accept, under the old ones. An old-key
    packet after that is discarded, count `auth_fail`; the session goes on.

    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When the scripted client acknowledges everything
    And the scripted client proposes new keys
    Then the device accepts them under the old keys
    When the device is given a message of 300 bytes
    Then nothing but acknowledgements and its accept comes for 2 s
    When the scripted client changes to the new keys
    And the scripted client acknowledges everything
    Then the scripted client receives that message under the new keys
    When the scripted client uses the old keys for a message
    Then the counter "auth_fail" of the device grew by 1

  # -- what else a session does

  @req.TRN-07 @req.MTU-02 @req.MTU-04
  Scenario: a probe that gets lost is replaced by a void
    Expected: packets of more than 900 bytes get lost: both ends find that, send no probe twice, but in its place a
    void with its seq, and messages pass.

    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    And packets of more than 900 bytes get lost
    Then both ends find an mtu of 900 within 60 s
    And each probe that got lost was followed by a void, and was never sent again
    When both ends exchange messages of 64 and 5000 bytes
    Then every message arrives intact and in order at last

  @req.CFG-02 @req.CFG-03 @req.TRN-04
  Scenario: a configuration while the wire is bad
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    And the wire loses, doubles, reorders and corrupts raw packets
    When the client is told to propose difficulty 17 within 60 s
    Then the client says that its proposal is accepted
    When the client is told to confirm
    Then the client says that its proposal is confirmed
    And the configuration of the other end is version 1, confirmed

  @req.CFG-02 @req.TRN-06
  Scenario: a CONFIG that comes again is answered as before
    Given all nodes speak over raw
    And the device listens as server
    And a scripted client has a session with the device
    When it proposes version 1 with difficulty 17
    Then the proposal is answered with CONFIG_LOCKED
    When it sends the same packet again
    Then the proposal is answered with CONFIG_LOCKED
    And the counter "duplicate" of the device grew by 1
    And the device's configuration is version 1

  @req.INT-01 @req.INT-02
  Scenario: challenges while the wire is bad
    Given all nodes speak over raw
    And the device listens as server
    And the device is connected to it over IPv4
    And the wire loses, doubles, reorders and corrupts raw packets
    When both ends are told to challenge, 3 times
    Then both ends trust each other
