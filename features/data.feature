@area.data
Feature: Data, sequence numbers and protection
  What a session delivers is what its peer sent: complete, once, unaltered, and only if it was sealed with
  the session's keys. A packet that fails a check is discarded, counted by name, and harms nobody.

  @req.DATA-01 @req.DATA-02 @req.SEAL-01 @req.SEAL-02 @req.SEAL-03
  Scenario Outline: messages between <client> and <server> over <family> arrive intact
    Sizes from one byte to the largest that fits one packet (mtu - 96 = 1304), both ways.

    Given the <server> listens as server
    And the <client> is connected to it over <family>
    When both ends exchange messages of 1, 2, 15, 16, 17, 255, 1000, 1303 and 1304 bytes
    Then every message arrived intact and in order
    And neither end discarded a packet

    Examples: pairings
      | client    | server    | family |
      | reference | device    | IPv4   |
      | device    | reference | IPv4   |
      | device    | device    | IPv4   |
      | reference | device    | IPv6   |
      | device    | reference | IPv6   |
      | device    | device    | IPv6   |

  @req.DATA-01 @req.FRAG-01 @req.FRAG-05 @req.MTU-04
  Scenario Outline: messages of several packets between <client> and <server> over <family> arrive intact
    From the first size that needs two fragments (1305) to the largest message (65535), both ways.

    Given the <server> listens as server
    And the <client> is connected to it over <family>
    When both ends exchange messages of 1305, 2592, 2593, 20000 and 65535 bytes
    Then every message arrived intact and in order
    And neither end discarded a packet

    Examples: pairings
      | client    | server    | family |
      | reference | device    | IPv4   |
      | device    | reference | IPv6   |
      | device    | device    | IPv4   |

  @req.DATA-01
  Scenario Outline: a message of <size> bytes is refused with <errno>
    Expected: the caller gets <errno>, nothing is sent, the session goes on.

    Given the device listens as server
    And the reference is connected to it over IPv4
    When the server tries to send a message of <size> bytes
    Then sending fails with <errno>
    And a message from the server arrives at the client intact

    Examples: outside 1..65535
      | size  | errno    |
      | 0     | EINVAL   |
      | 65536 | EMSGSIZE |

  @req.DATA-03
  Scenario: a receive buffer that is too small keeps the message
    Expected: EMSGSIZE that reports the size needed; the next receive gets the whole message.

    Given the device listens as server
    And the reference is connected to it over IPv4
    When the client sends a message of 500 bytes
    And the server tries to receive into 499 bytes
    Then receiving fails with EMSGSIZE and reports 500 bytes
    And the server receives that message whole

  @req.SEQ-05 @req.DATA-02
  Scenario: DATA is acknowledged
    Every DATA asks for an ACK. Expected: one comes whose ack field is the sequence number of the DATA,
    with a valid hmac and an empty payload.

    Given the device listens as server
    And a scripted client has a session with the device
    When it sends DATA
    Then it receives an ACK for that packet

  @req.SEQ-02 @req.ERR-01
  Scenario: a replayed packet is discarded and counted
    Expected: delivered once, `replay_drops` grows by one, the session survives. Control: the first copy
    is delivered.

    Given the device listens as server
    And a scripted client has a session with the device
    When it sends DATA
    Then the device receives it
    When it sends the same packet again
    Then the counter "replay_drops" of the device grew by 1
    And the session still carries data both ways

  @req.SEQ-02 @req.SEQ-04
  Scenario Outline: a packet <behind> behind the newest is <outcome>
    The window holds 64 packets. Expected: 63 behind is still delivered, 64 and 65 behind are not.

    Given the device listens as server
    And a scripted client has a session with the device
    When it skips <behind> sequence numbers and sends DATA
    Then the device receives it
    When it sends DATA with the first number skipped
    Then that packet is <outcome>
    And the session still carries data both ways

    Examples: the window's edge
      | behind | outcome                            |
      | 1      | delivered                          |
      | 63     | delivered                          |
      | 64     | discarded and counted replay_drops |
      | 65     | discarded and counted replay_drops |

  @req.SEAL-06 @req.CLS-02
  Scenario: a packet with a wrong hmac ends a TCP session
    On a stream, framing can no longer be trusted. Expected: not delivered, `auth_fail` counts it, the
    session is gone. Control: DATA before it is delivered.

    Given the device listens as server
    And a scripted client has a session with the device
    When it sends DATA
    Then the device receives it
    When it sends DATA with a wrong hmac
    Then the device ends the session
    And the counter "auth_fail" of the device grew by 1

  @req.SEAL-07
  Scenario: a packet with a right hmac and a wrong tag ends a TCP session
    Given the device listens as server
    And a scripted client has a session with the device
    When it sends DATA
    Then the device receives it
    When it sends DATA with a wrong tag
    Then the device ends the session
    And the counter "decrypt_fail" of the device grew by 1

  @req.SEQ-06
  Scenario: a packet reflected to its sender is discarded
    One key serves both directions, so only the sequence range tells a reflection. Expected: `reflected`
    counts it, nothing is delivered, the session survives.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device sends DATA and the scripted client sends that packet back
    Then the counter "reflected" of the device grew by 1
    And the session still carries data both ways

  @req.SEQ-06
  Scenario: an acknowledgement of what was never sent is ignored
    Given the device listens as server
    And a scripted client has a session with the device
    When it sends DATA that acknowledges more than the device sent
    Then the counter "bad_ack" of the device grew by 1
    And the session still carries data both ways

  @req.WIRE-03 @req.WIRE-08 @req.WIRE-05 @req.WIRE-06 @req.SEAL-05 @req.CHAN-01 @req.SEAL-04 @req.TRN-01 @req.ERR-01
  Scenario Outline: <packet> is discarded as <counter> and the session survives
    Each packet is authentic but breaks one rule. Expected: nothing is delivered, exactly that counter
    grows by one, and the session carries data before (control) and after.

    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    When it sends <packet>
    Then the counter "<counter>" of the device grew by 1
    And the session still carries data both ways

    Examples: authentic packets that break a rule
      | packet                           | counter         |
      | DATA with reserved0 set          | malformed       |
      | DATA with reserved1 set          | malformed       |
      | DATA with flag bit 10 set        | malformed       |
      | DATA with flag bit 15 set        | malformed       |
      | DATA with COMPRESSED set         | malformed       |
      | a HEARTBEAT with a channel       | malformed       |
      | DATA in plaintext                | malformed       |
      | DATA sealed but 16 bytes long    | malformed       |
      | a packet of type 13              | unknown_type    |
      | a packet of type 15              | unknown_type    |
      | an INIT                          | unexpected_type |
      | a CHALLENGE                      | unexpected_type |
      | DATA on an unsubscribed channel  | unsubscribed    |
      | DATA for another session id      | unknown_session |

  @req.CHAN-01
  Scenario: channels are subscribed, listed and unsubscribed
    Expected: channel 0 is on by default; a message on channel 7 arrives only while 7 is subscribed.

    Given the device listens as server
    And the reference is connected to it over IPv4
    Then the server's channels are 0
    When the server subscribes channels 7 and 255
    Then the server's channels are 0, 7, 255
    And a message on channel 7 arrives at the server
    When the server unsubscribes channel 7
    Then the server's channels are 0, 255
    And a message on channel 7 does not arrive at the server

  @req.CLS-01
  Scenario Outline: <closer> closes a session between <client> and <server> over <family>
    Expected: both ends drop the session; what had arrived before stays readable.

    Given the <server> listens as server
    And the <client> is connected to it over <family>
    When the client sends a message of 100 bytes
    And the message waits at the server
    And the <closer> closes the session
    Then the server still reads that message
    And neither end lists the session

    Examples: pairings
      | client    | server    | family | closer |
      | reference | device    | IPv4   | client |
      | device    | reference | IPv4   | client |
      | device    | device    | IPv4   | client |
      | reference | device    | IPv6   | server |
      | device    | reference | IPv6   | server |
      | device    | device    | IPv6   | server |

  @req.CLS-01 @req.SEAL-04
  Scenario: a CLOSE on the wire is authentic
    Expected: when the device closes, its peer receives a CLOSE with a valid hmac and the code, if any,
    sealed.

    Given the device listens as server
    And a scripted client has a session with the device
    When the device closes the session
    Then the scripted client receives an authentic CLOSE

  @req.CLS-03
  Scenario: the end of the stream ends the session
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client drops the connection
    Then the device ends the session

  @req.HB-01
  Scenario: a HEARTBEAT is acknowledged at once
    Given the device listens as server
    And a scripted client has a session with the device
    When it sends a HEARTBEAT
    Then it receives an ACK for that packet

  @req.WIRE-07
  Scenario: garbage on one session harms no other
    Expected: after 4096 seeded random bytes and the end of that stream, its session is gone; another one
    goes on.

    Given the device listens as server
    And the reference is connected to it over IPv4
    And a scripted client has a session with the device
    When the scripted client sends 4096 random bytes and drops the connection
    Then the device ends the session
    And a message from the client arrives at the server intact
