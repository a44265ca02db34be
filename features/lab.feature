@area.lab @needs.kernel
Feature: The lab itself
  What a verdict rests on. A lab that repeats randomness would make every device look broken, or whole.

  @req.KEY-01
  Scenario: two restores of one snapshot give different ephemeral keys
    A snapshot restores the kernel's random generator with everything else. Expected: after each restore
    the module's handshakes use keys never seen before, as client and as server.

    When the server's guest is restored twice, the module loaded and a session opened each time
    Then no ephemeral key was used twice
    And the guest's clock is right
