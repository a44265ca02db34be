@area.misbehaviour
Feature: Peers that misbehave
  The reference violates one requirement, once, and is sound in everything else. A sound peer discards what is
  wrong, counts it, and goes on, or ends what cannot be trusted any more: each switch of the reference says
  which. Control: before, a reference that does the same without the fault is served to the end.

  Scenario Outline: a client misbehaves with <switch>
    Expected: exactly the counters that the switch names grow, by exactly as much. The session ends or goes
    on as it says; if it goes on, it carries the other messages, and those of both ends afterwards.

    Given a sound client does what one does that misbehaves with <switch>
    When the client misbehaves so
    Then the device reacts as a sound peer does

    @req.SEAL-01 @req.SEAL-02 @req.SEAL-03 @req.SEAL-04 @req.WIRE-08
    Examples: packet protection
      | switch                        |
      | little-endian-nonce           |
      | hmac-of-plaintext             |
      | zero-hmac                     |
      | encrypted-cleared             |
      | encrypted-unsealed            |
      | ack-with-payload              |

    @req.SEQ-03 @req.WIRE-01 @req.WIRE-05 @req.WIRE-06
    Examples: headers
      | switch                        |
      | unknown-type:type=14          |
      | response-in-session           |
      | payload-len-long:by=80        |
      | cut-short                     |

    @req.SEAL-02 @req.SEQ-01 @req.SEQ-02 @req.SEQ-06
    Examples: sequence numbers
      | switch                        |
      | late-replay:after=3           |
      | stale-seq:behind=64           |
      | peers-seq                     |
      | seq-out-of-range              |
      | seq-reused                    |
      | ack-below-first               |
      | ack-own-range                 |

    @req.DATA-01 @req.FRAG-01 @req.FRAG-02 @req.FRAG-03 @req.FRAG-04
    Examples: messages and fragments
      | switch                        |
      | empty-data                    |
      | fragment-past-end             |
      | fragment-overlap              |
      | last-frag-missing             |
      | fragment-empty                |
      | fragment-withheld             |
      | msg-id-reused                 |

    @req.HB-01
    Examples: heartbeats
      | switch                        |
      | telemetry-size                |

    @req.CLS-01 @req.CLS-02 @req.SEAL-04
    Examples: the end
      | switch                        |
      | close-unauthentic             |
      | close-overlong                |
      | close-unknown-code            |

    @req.HS-07 @req.KEY-02 @req.SEQ-01 @req.SEQ-03 @req.SEQ-06 @req.WIRE-08
    Examples: the handshake
      | switch                        |
      | other-derivation              |
      | response-unencrypted          |
      | closing-seq                   |
      | response-twice                |
      | replayed-response             |

  Scenario Outline: a server misbehaves with <switch>
    Expected: as above, for a device that connects. Where the attempt fails, its caller gets the errno that
    the switch names, and no session is left.

    Given a sound server does what one does that misbehaves with <switch>
    When the server misbehaves so
    Then the device reacts as a sound peer does

    @req.AMD-02 @req.HS-02 @req.HS-10 @req.HS-11 @req.HS-14 @req.KEY-01 @req.SEAL-04 @req.SEQ-03 @req.WIRE-02 @req.WIRE-06
    Examples: the handshake
      | switch                        |
      | low-order-key:point=order8-b  |
      | zero-session-id               |
      | closing-hmac                  |
      | challenge-twice               |
      | refuses                       |
      | claims-version:version=0      |

    @req.FRAG-03 @req.SEAL-02 @req.SEAL-03 @req.SEQ-01 @req.SEQ-06 @req.WIRE-08
    Examples: the session
      | switch                        |
      | little-endian-nonce           |
      | hmac-of-plaintext             |
      | encrypted-cleared             |
      | peers-seq                     |
      | ack-own-range                 |
      | fragment-overlap              |
