@area.procfs @needs.kernel
Feature: /proc/pool
  What the module shows of itself: read-only, complete, and true.

  @req.ABI-19
  Scenario: the files are there, for everybody to read and nobody to write
    Given the module is loaded
    Then /proc/pool has the files status, sessions, telemetry, journal, integrity, attestation, details, peers, counters
    And each of them has mode 444
    And writing to any of them is refused

  @req.ABI-20 @req.ABI-21 @req.ABI-22 @req.ABI-26 @req.ABI-28
  Scenario: what they say of a session is true
    Expected: the same session, state, ids and figures as SESSIONS gives, one line each.

    Given the device listens as server
    And a scripted client has a session with the device
    And the session still carries data both ways
    Then /proc/pool/status has its six lines
    And /proc/pool/sessions tells of the session what the ioctl does
    And /proc/pool/telemetry has a line for the session
    And /proc/pool/details has idx, id, role, transport, version, epoch, mtu, subs and untrusted of the session
    And /proc/pool/counters has every counter of the protocol

  @req.ABI-24 @req.ABI-25
  Scenario: the attestation tells the hash of the code that is really there
    Expected: status OK; the SHA-256 of .text as the hypervisor reads it from the guest's memory.

    Given the module is loaded
    Then /proc/pool/integrity says OK, and its checks go on
    And /proc/pool/attestation has the SHA-256 of .text as the hypervisor reads it
    And it has the node's public key and the journal's head

  @req.ABI-12 @req.ABI-24 @req.ABI-25
  Scenario: code that changed after load is noticed
    Expected: one byte of .text changed from outside: COMPROMISED with the reason, existing sessions untrusted, a
    local connect refused with EKEYREJECTED, a client turned away. Control: all of it works before.

    Given the device listens as server
    And a scripted client has a session with the device
    Then /proc/pool/integrity says OK, and its checks go on
    When a byte of the module's code is changed from outside
    Then /proc/pool/integrity says COMPROMISED and why
    And the device calls the peer untrusted
    And the device's journal has an INTEGRITY entry that says ".text"
    And a connect from the device fails with EKEYREJECTED
    When a scripted client sends an INIT
    Then it receives an advisory CLOSE 0x09 of version 1 with a zero session id
