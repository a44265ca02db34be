@area.ioctl @needs.kernel
Feature: poolctl steers the module
  What people type. Each command runs in the guest as a process of its own; its exit status tells.

  @req.ABI-01 @req.ABI-02 @req.ABI-03 @req.CHAN-01
  Scenario Outline: a session over <family> from listen to close
    Given the module is loaded on both guests
    When poolctl on the server runs "listen"
    And poolctl on the client runs "connect <target>"
    Then it prints a session index
    When poolctl on the client runs "send 0 hello"
    And poolctl on the server runs "recv 0"
    Then it prints "hello"
    When poolctl on the server runs "channel 0 subscribe 7"
    And poolctl on the server runs "channel 0 list"
    Then it prints "0 7"
    When poolctl on the client runs "--json sessions"
    Then it prints one session in state ESTABLISHED as JSON
    When poolctl on the client runs "close 0"
    And poolctl on the server runs "stop"
    Then every command ended with status 0
    When poolctl on the client runs "connect <target>"
    Then it ends with status 1 and says ECONNREFUSED

    Examples: address forms
      | family | target               |
      | IPv4   | 10.253.0.2           |
      | IPv6   | [fd00:253::2]:9253   |

  Scenario: without the module poolctl says so in one line
    Given the module is not loaded
    When poolctl on the server runs "sessions"
    Then it ends with status 1 and says is the module loaded
