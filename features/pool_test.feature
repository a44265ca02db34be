@area.ioctl @needs.kernel
Feature: pool_test transfers between two modules
  Every byte is numbered, and both ends compute its SHA-256. The tool runs in the guests, on /dev/pool.

  @req.DATA-01 @req.DATA-02 @req.FRAG-01 @req.ABI-02 @req.TRN-01
  Scenario Outline: <size> bytes <direction> in messages of <message>
    Given the module is loaded on both guests
    When pool_test waits on the server
    And pool_test on the client runs "client 10.253.0.2 --retries 0 --size <size> --message <message> --direction <direction>"
    Then both ends have verified <size> bytes

    Examples: one packet a message, and many
      | size   | message | direction |
      | 300000 | 65535   | up        |
      | 300000 | 1304    | down      |
