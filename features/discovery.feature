@area.discovery
Feature: Discovery
  Nodes tell of themselves by multicast, and of others over their sessions. What they tell names candidates, no more;
  nobody can fill the table of peers with it, nor drive out whom the node was told of by its owner.

  @req.DISC-01 @req.N07 @needs.kernel
  Scenario: a listening node announces itself
    Expected: 76 bytes to 239.253.0.1 port 9253 with TTL 1: its public key, its address, the port it listens on,
    version 1. Nothing before it listens.

    Given the module is loaded
    Then the device announces nothing for 2 s
    When the device starts to listen
    Then an announce of the device is on the wire
    And its TTL is 1 and it goes to the group
    And it tells the device's public key, address, port and version

  @req.DISC-02 @req.DISC-04 @req.ABI-27 @needs.kernel
  Scenario: an announced peer is known, and authenticates nothing
    Given the device listens as server
    When 10.253.0.77 announces port 4000 with a public key
    Then the device knows 10.253.0.77 port 4000 by announce, with that key
    And the device lists 0 sessions
    And the device still serves a session

  @req.DISC-01 @req.M08 @req.ERR-01 @needs.kernel
  Scenario Outline: an announce with <fault> is ignored
    Expected: `<counter>` counts it where it is a discard; nobody becomes known. Control: a sound one is taken.

    Given the device listens as server
    When 10.253.0.77 announces port 4000 with a public key
    Then the device knows 10.253.0.77 port 4000 by announce, with that key
    When 10.253.0.78 announces itself with <fault>
    Then the announce is counted as <counter>
    And the device does not know 10.253.0.78

    Examples: faults
      | fault                 | counter          |
      | 75 bytes              | malformed        |
      | 77 bytes              | malformed        |
      | no bytes              | malformed        |
      | port 0                | malformed        |
      | a wrong address       | malformed        |
      | version 2             | version_mismatch |
      | the device's own key  | nothing          |

  @req.DISC-02 @req.S07 @needs.kernel
  Scenario: one source is heard ten times a second at most
    Given the device listens as server
    When 10.253.0.77 announces ports 4000 to 4199 at once
    Then the device knows at most 15 peers at 10.253.0.77
    And the counter "announce_limited" of the device grew

  @req.M03 @req.DISC-02 @needs.kernel
  Scenario: the table keeps 256 peers and every static one
    Given the module is loaded on the server with "peers=10.9.9.1:1111,[fd00::9]:2222,10.9.9.2:3333:0101010101010101010101010101010101010101010101010101010101010101"
    And the device listens as server
    When 300 peers announce themselves, one after the other
    Then the device knows 256 peers
    And the 47 that announced themselves first are gone
    And the static ones are known with the key they were given

  @req.DISC-03
  Scenario: the device takes what a peer tells
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client tells of 10.1.1.1 port 9253, 10.1.1.2 port 9254 and 10.1.1.3 port 9255
    Then the device knows 10.1.1.2 port 9254 by exchange
    And the device knows 3 peers
    And the device discarded nothing

  @req.DISC-03 @req.M08 @req.ERR-01
  Scenario Outline: an exchange with <fault> is discarded
    Given the device listens as server
    And a scripted client has a session with the device
    When the scripted client utters an exchange with <fault>
    Then the counter "malformed" of the device grew by <times>
    And the device knows <known> peers
    And the session still carries data both ways

    Examples: faults
      | fault                                 | times | known |
      | no bytes                              | 1     | 0     |
      | one byte                              | 1     | 0     |
      | a count one too high                  | 1     | 0     |
      | a count one too low                   | 1     | 0     |
      | a count of 65535                      | 1     | 0     |
      | 35 entries                            | 1     | 0     |
      | a port 0 and a multicast address      | 2     | 1     |

  @req.S07 @req.DISC-03 @needs.kernel
  Scenario: a flood of exchanges neither fills the table nor drives anybody out
    Given the device listens as server
    And a scripted client has a session with the device
    When 10.253.0.77 announces port 4000 with a public key
    Then the device knows 10.253.0.77 port 4000 by announce, with that key
    When the scripted client tells of 34 new peers 100 times at once
    Then the counter "announce_limited" of the device grew
    And the device knows 10.253.0.77 port 4000 by announce, with that key
    And the device knows at most 256 peers
    And the session still carries data both ways

  @req.DISC-03 @req.ABI-17 @req.ABI-30 @needs.kernel
  Scenario: the device tells of the peers it saw itself
    Expected: static and announced IPv4 peers, no hearsay, no IPv6 ones, at most 34 a packet.

    Given the module is loaded on the server with "peers=10.9.9.1:1111,[fd00::9]:2222"
    And the device listens as server
    And a scripted client has a session with the device
    When 10.253.0.77 announces port 4000 with a public key
    And the scripted client tells of 10.1.1.1 port 9253, 10.1.1.2 port 9254 and 10.1.1.3 port 9255
    Then the device knows 10.1.1.2 port 9254 by exchange
    When the device is told to exchange
    Then it tells of 10.253.0.77 port 4000 and 10.9.9.1 port 1111 only

  @req.ABI-30 @needs.kernel
  Scenario Outline: the parameter <parameter> is refused
    When the module is loaded on the server with the parameter <parameter>
    Then loading fails with <errno>
    And the device still serves a session

    Examples: module parameters
      | parameter              | errno  |
      | peers=10.9.9.1         | EINVAL |
      | peers=10.9.9.1:0       | EINVAL |
      | peers=10.9.9.1:65536   | EINVAL |
      | peers=10.9.9.1:1:00    | EINVAL |
      | peers=fd00::9:2222     | EINVAL |
      | peers=224.0.0.1:9      | EINVAL |
      | difficulty=15          | EINVAL |
      | difficulty=21          | EINVAL |
      | heartbeat_sec=0        | EINVAL |
      | heartbeat_sec=31       | EINVAL |
      | rekey_packets=1023     | EINVAL |
      | rekey_packets=268435457 | EINVAL |
      | rekey_sec=9            | EINVAL |
      | rekey_sec=3601         | EINVAL |
      | integrity_sec=3601     | EINVAL |
      | transport=carrier      | EINVAL |
      | version=3              | EINVAL |
