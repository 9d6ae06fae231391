import Foundation
import HostSystem
import Images
import Testing

/// Debian's order of versions (Debian Policy, 5.6.12), beside what dpkg says of it.
@Suite struct DebianVersionTests {
  static let pairs: [(String, String)] = [
    ("1.0", "1.0"), ("1.0", "1.1"), ("1.0~rc1", "1.0"), ("1:0.1", "2.0"), ("1.0-1", "1.0-2"), ("1.0-1", "1.0"),
    ("1.0+b1", "1.0"), ("1.0a", "1.0"), ("1.0~~", "1.0~"), ("0:1.0", "1.0"), ("1.0-10", "1.0-9"), ("1.01", "1.1"),
    ("2.36-9+deb12u14", "2.36-9+deb12u9"), ("1.0-1~bpo12+1", "1.0-1"), ("a", "1"), ("1.0.", "1.0"), ("1-1-1", "1-1"),
  ]

  @Test(arguments: pairs)
  func agreesWithDpkg(left: String, right: String) throws {
    for (operation, holds) in [
      ("lt", DebianVersion(left) < DebianVersion(right)), ("eq", DebianVersion(left) == DebianVersion(right)),
      ("gt", DebianVersion(left) > DebianVersion(right)),
    ] {
      let outcome = try Subprocess.runAndWait("dpkg", ["--compare-versions", left, operation, right])
      #expect((outcome.status == 0) == holds, "\(left) \(operation) \(right)")
    }
  }
}
