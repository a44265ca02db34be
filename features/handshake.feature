@area.handshake
Feature: Handshake
  A session starts with INIT, CHALLENGE, RESPONSE and ACK. The server spends nothing on a client that has
  not solved its puzzle, and nobody gets a session who does not hold the key that the session was made with.

  @req.HS-03 @req.HS-08 @req.HS-11 @req.KEY-01 @req.KEY-02 @req.SEQ-03 @req.WIRE-01
  Scenario Outline: <client> opens a session to <server> over <family>
    Two independent implementations can only agree on a session if puzzle, proof, key schedule and
    sequence start are all as specified. Expected: both ends list the same session as ESTABLISHED and
    neither discarded a packet on the way.

    Given the <server> listens as server
    When the <client> connects to it over <family>
    Then both ends list the session as ESTABLISHED with the same session id
    And a message from the client arrives at the server intact
    And a message from the server arrives at the client intact
    And neither end discarded a packet

    @req.TRN-01
    Examples: IPv4
      | client    | server    | family |
      | reference | device    | IPv4   |
      | device    | reference | IPv4   |
      | device    | device    | IPv4   |

    @req.TRN-02
    Examples: IPv6
      | client    | server    | family |
      | reference | device    | IPv6   |
      | device    | reference | IPv6   |
      | device    | device    | IPv6   |

  @req.KEY-01 @req.HS-13
  Scenario Outline: a server refuses a client key of low order (<point>)
    With such a key the shared secret is known to everybody. Expected: refused with the advisory CLOSE
    0x01 or by silence and a closed connection, no session. Control: an honest client is served.

    Given the device listens as server
    And a scripted client that keeps to the rules gets a session
    When a scripted client uses the low-order key "<point>"
    Then the device refuses the handshake
    And the device lists no session with the scripted client

    Examples: points of low order and their non-canonical forms
      | point    |
      | zero     |
      | one      |
      | order8-a |
      | order8-b |
      | p-1      |
      | p        |
      | p+1      |

    @req.C02
    Examples: their twins beyond 2^255
      | point      |
      | p+order8-a |
      | p+order8-b |
      | 2p-1       |
      | 2p         |
      | 2p+1       |

  @req.HS-02 @req.HS-03 @req.HS-08 @req.HS-13 @req.SEAL-03 @req.SEAL-04
  Scenario Outline: a server refuses a RESPONSE with <fault>
    Each check of the server is made to fail alone. Expected: advisory CLOSE 0x01, the connection closed,
    no session. Control: the same client without the fault gets a session.

    Given the device listens as server
    And a scripted client that keeps to the rules gets a session
    When a scripted client answers the CHALLENGE with <fault>
    Then the device refuses the handshake with the advisory CLOSE 0x01
    And the device lists no session with the scripted client

    Examples: one fault each
      | fault                           |
      | a wrong puzzle solution         |
      | a wrong proof                   |
      | a wrong hmac                    |
      | a wrong session id              |
      | another client key than in INIT |
      | one byte too few                |
      | one byte too many               |

  @req.HS-06
  Scenario Outline: an INIT whose clock is <offset> s off is <outcome>
    An old INIT may be a recording. Expected: beyond 30 s either way there is no CHALLENGE and
    `stale_init` counts it; well within, there is one.

    Given the device listens as server
    And a scripted client that keeps to the rules gets a session
    When a scripted client sends an INIT whose clock is <offset> s off
    Then the INIT is <outcome>

    Examples: around the limit of 30 s
      | offset | outcome                         |
      | -20    | answered with a CHALLENGE       |
      | 20     | answered with a CHALLENGE       |
      | -40    | discarded and counted stale_init |
      | 40     | discarded and counted stale_init |

  @req.WIRE-02
  Scenario: an INIT of another version is answered with CLOSE 0x0A
    There is no negotiation and no downgrade. Expected: an advisory CLOSE with code 0x0A, the
    answerer's own version nibble and a zero session id; `version_mismatch` counts it.

    Given the device listens as server
    And a scripted client that keeps to the rules gets a session
    When a scripted client sends an INIT of version 2
    Then it receives an advisory CLOSE 0x0A of version 1 with a zero session id
    And the counter "version_mismatch" of the device grew by 1

  @req.HS-01 @req.HS-09
  Scenario: unfinished handshakes take no session and delay nobody
    A server that kept state for every INIT could be emptied by one cheap client. Expected: after 100
    connections that stop at the CHALLENGE no session is listed, and the next honest client is served.

    Given the device listens as server
    When 100 scripted clients stop after their CHALLENGE
    Then the device lists 0 sessions
    And a scripted client that keeps to the rules gets a session

  @req.HS-09
  Scenario: a client that connects and stays silent delays no other
    Expected: while five TCP connections sit silent, an honest client is served at once.

    Given the device listens as server
    When 5 scripted clients connect and stay silent
    Then a scripted client that keeps to the rules gets a session

  @req.HS-07 @req.HS-13
  Scenario: a RESPONSE works once
    A recorded RESPONSE must not open a second session. Expected: replayed on a new connection it is
    refused, and the first session goes on.

    Given the device listens as server
    And a scripted client has a session with the device
    When another connection replays the RESPONSE of that session
    Then the device refuses the handshake
    And the device lists 1 session
    And the session still carries data both ways

  @req.HS-10
  Scenario: the 65th session is refused
    Expected: 64 sessions are served; the next INIT is answered with the advisory CLOSE 0x09, the
    caller's connect fails with ECONNREFUSED, and the 64 go on.

    Given the device listens as server
    And 64 scripted clients have a session with the device
    When a scripted client sends an INIT
    Then it receives an advisory CLOSE 0x09 of version 1 with a zero session id
    And the device lists 64 sessions
    When the reference tries to connect to it over IPv4
    Then connecting fails with ECONNREFUSED
    And the session still carries data both ways

  @req.SEQ-01
  Scenario: the two directions use disjoint sequence ranges
    One key serves both directions; only the ranges keep their nonces apart. Expected over 8
    handshakes: server starts lie in [2^62, 2^62+2^61) and no two are alike.

    Given the device listens as server
    When 8 scripted clients get a session one after the other
    Then every sequence number the device started with lies in the server's range
    And no two of them are alike

  @req.HS-04
  Scenario: the difficulty offered lies in 16..20 when idle
    Given the device listens as server
    When a scripted client sends an INIT
    Then it receives a CHALLENGE with a difficulty in 16..20

  @req.HS-11
  Scenario: a client refuses an ACK with a wrong hmac
    The ACK proves that the server derived the same keys. Expected: EBADMSG, no session. Control: with
    the right hmac the same server gets the client's session.

    Given a scripted server that keeps to the rules gets the device's session
    And a scripted server that sends an ACK with a wrong hmac
    When the device tries to connect to it over IPv4
    Then connecting fails with EBADMSG
    And the device lists no session with the scripted server

  @req.KEY-01 @req.HS-13
  Scenario: a client refuses a server key of low order
    Given a scripted server that keeps to the rules gets the device's session
    And a scripted server that offers a key of low order
    When the device tries to connect to it over IPv4
    Then connecting fails
    And the scripted server received no RESPONSE
    And the device lists no session with the scripted server

  @req.HS-04
  Scenario: a client refuses a difficulty above 24
    A hostile server must not make a client work for hours. Expected: an error at once and
    not after the 25 s that a search may take, no RESPONSE.

    Given a scripted server that keeps to the rules gets the device's session
    And a scripted server that asks for difficulty 25
    When the device tries to connect to it over IPv4
    Then connecting fails within 10 s
    And the scripted server received no RESPONSE
    And the device lists no session with the scripted server

  @req.WIRE-02
  Scenario: a client that is told 0x0A reports EPROTONOSUPPORT
    Given a scripted server that keeps to the rules gets the device's session
    And a scripted server that answers INIT with the advisory CLOSE 0x0A
    When the device tries to connect to it over IPv4
    Then connecting fails with EPROTONOSUPPORT

  @req.HS-10
  Scenario: a client that is told 0x09 reports ECONNREFUSED
    Given a scripted server that keeps to the rules gets the device's session
    And a scripted server that answers INIT with the advisory CLOSE 0x09
    When the device tries to connect to it over IPv4
    Then connecting fails with ECONNREFUSED

  @req.HS-13
  Scenario: a connection that nobody answers on fails cleanly
    Expected: connecting to a port without a listener fails with ECONNREFUSED and leaves no session.

    When the device tries to connect to a closed port over IPv4
    Then connecting fails with ECONNREFUSED
    And the device lists 0 sessions

  @req.WIRE-07 @req.HS-13
  Scenario: garbage instead of an INIT harms nobody
    Expected: ten connections of 4096 seeded random bytes each leave no session, and the next honest
    client is served.

    Given the device listens as server
    When 10 scripted clients send 4096 random bytes and drop the connection
    Then the device lists 0 sessions
    And a scripted client that keeps to the rules gets a session
