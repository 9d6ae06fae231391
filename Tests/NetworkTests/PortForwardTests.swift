import Network
import Testing

struct PortForwardTests {
  @Test(arguments: [
    ("2222:22", PortForward(hostPort: 2222, guestPort: 22)),
    ("127.0.0.1:8080:80/tcp", PortForward(hostPort: 8080, guestPort: 80)),
    ("53:53/udp", PortForward(transport: .udp, hostPort: 53, guestPort: 53)),
    ("53:53/UDP", PortForward(transport: .udp, hostPort: 53, guestPort: 53)),
    ("0.0.0.0:1:65535", PortForward(hostAddress: IPAddress(0, 0, 0, 0), hostPort: 1, guestPort: 65535)),
    ("2222:10.0.2.20:22", PortForward(hostPort: 2222, guestAddress: IPAddress(10, 0, 2, 20), guestPort: 22)),
    (
      "127.0.0.2:2222:10.0.2.20:22/tcp",
      PortForward(
        hostAddress: IPAddress(127, 0, 0, 2), hostPort: 2222, guestAddress: IPAddress(10, 0, 2, 20), guestPort: 22)
    ),
    ("[::1]:2222:22", PortForward(hostAddress: IPAddress("::1")!, hostPort: 2222, guestPort: 22)),
    (
      "[::1]:2222:[fec0::15]:22",
      PortForward(
        hostAddress: IPAddress("::1")!, hostPort: 2222, guestAddress: IPAddress("fec0::15")!, guestPort: 22)
    ),
  ])
  func readsWhatPeopleWrite(text: String, expected: PortForward) throws {
    let forward = try PortForward(parsing: text)
    #expect(forward == expected)
    // What is printed reads back as the same.
    #expect(try PortForward(parsing: forward.description) == forward)
  }

  @Test(arguments: [
    ("", "the host's port is missing"), ("127.0.0.1", "the host's port is missing"),
    ("22", "the guest's port is missing"),
    ("a:b", "'a' is not an IP address"), ("2222:", "'' is not a port from 1 to 65535"),
    (":22", "'' is not a port from 1 to 65535"), ("0:22", "'0' is not a port from 1 to 65535"),
    ("2222:0", "'0' is not a port from 1 to 65535"), ("65536:22", "'65536' is not a port from 1 to 65535"),
    ("99999999999999999999:22", "'99999999999999999999' is not a port from 1 to 65535"),
    ("-1:22", "'-1' is not an IP address"), ("+5:22", "'+5' is not an IP address"),
    ("2222:22:33", "there is more after the guest's port"), ("2222:22/sctp", "'sctp' is neither tcp nor udp"),
    ("2222:22/", "'' is neither tcp nor udp"), ("::1:2222:22", "'' is not a port from 1 to 65535"),
    ("[::1:2222:22", "a bracket doesn't match"), ("::1]:2222:22", "a bracket doesn't match"),
    ("[::1]2222:22", "a bracket doesn't match"), ("300.0.0.1:1:1", "'300.0.0.1' is not an IP address"),
    ("localhost:2222:22", "'localhost' is not an IP address"),
    ("[::1]:2222:10.0.2.15:22", "the two addresses must both be IPv4 or both IPv6"),
    ("٢٢:22", "'٢٢' is not a port from 1 to 65535"),
  ])
  func saysWhatIsWrong(text: String, why: String) {
    let error = #expect(throws: NetworkError.self) { _ = try PortForward(parsing: text) }
    #expect(error?.code == .invalidArgument)
    #expect(error?.message == "port forward '\(text)': \(why); write HOSTPORT:GUESTPORT, as in 2222:22")
  }

  @Test func choicesOfNetwork() throws {
    #expect(try NetworkChoice(parsing: "user") == .user)
    #expect(try NetworkChoice(parsing: "none") == .none)
    #expect(try NetworkChoice(parsing: "tap=tap0") == .tap(name: "tap0"))
    #expect(NetworkChoice.tap(name: "tap0").description == "tap=tap0")
  }

  @Test(arguments: ["", "User", "tap", "tap=", "tap=a/b", "tap=a b", "tap=..", "tap=0123456789abcdef", "bridge=br0"])
  func otherChoicesAreRefused(text: String) {
    let error = #expect(throws: NetworkError.self) { _ = try NetworkChoice(parsing: text) }
    #expect(error?.message.contains("tap=") == true)
    #expect(error?.message.contains("\n") == false)
  }

  @Test func addressesPrintAsTheyRead() {
    #expect(IPAddress("127.0.0.1")?.description == "127.0.0.1")
    #expect(IPAddress("fec0:0::2")?.description == "fec0::2")
    #expect(IPAddress("example") == nil)
  }
}
