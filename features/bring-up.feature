@area.lifecycle @needs.kernel
Feature: Bringing the module up
  Nothing else can be said of a module that does not build or load, so this comes first and says why.

  @req.S09
  Scenario: the module is there for the guest's kernel
    Expected: the source compiles against the headers of the guest's own kernel, or the given .ko is one
    for it. The build log is attached.

    Then there is a module under test

  @req.C06 @req.L02
  Scenario: the module loads and shows its interfaces
    Expected: its self-tests pass, /dev/pool (0600) and /proc/pool appear, the console stays quiet.

    When the module is loaded into an untouched kernel
    Then /dev/pool exists with mode 600
    And /proc/pool/status says "Active sessions: 0 / 64"
    And /proc/pool/sessions lists no session
