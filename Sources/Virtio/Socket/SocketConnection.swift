import Glibc
import HostSystem

/// A stream between a port of the guest and a Unix socket of the host. The I/O thread's.
final class SocketConnection {
  /// Bytes from the guest that wait for whoever reads the host's side.
  static let allocation: UInt32 = 256 << 10

  /// Names a connection: its port on each side.
  struct Ports: Hashable {
    var guest: UInt32
    var host: UInt32
  }

  let ports: Ports
  let descriptor: Int32
  var watch: EventLoop.Token?
  /// The guest has agreed to it, or asked for it.
  var isOpen: Bool

  // From the guest to the host.
  private var pending: [UInt8] = []
  private var pendingStart = 0
  /// Bytes written to the host's side so far, and what the guest knows of that.
  private(set) var forwarded: UInt32 = 0
  private var toldForwarded: UInt32 = 0
  var guestSendsNoMore = false
  var guestReceivesNoMore = false

  // From the host to the guest.
  private var guestAllocation: UInt32 = 0
  private var guestForwarded: UInt32 = 0
  private var sent: UInt32 = 0
  /// The host's side has come to its end, and the guest knows.
  var hostSendsNoMore = false
  /// There are bytes for the guest, but no room in its buffer or no buffers in its queue.
  var waitsForCredit = false
  var waitsForBuffers = false
  var isHeld: Bool { waitsForCredit || waitsForBuffers }
  /// Nobody is there any more, and there are still bytes for the guest.
  var hostReadsNoMore = false

  init(_ ports: Ports, descriptor: Int32, isOpen: Bool) {
    self.ports = ports
    self.descriptor = descriptor
    self.isOpen = isOpen
  }

  deinit { close(descriptor) }

  /// Takes what any packet of the guest says about its buffer.
  func note(_ packet: SocketPacket) {
    guestAllocation = packet.allocation
    guestForwarded = packet.forwarded
  }

  /// Bytes that the guest's buffer has room for.
  var credit: Int {
    let inFlight = sent &- guestForwarded
    return inFlight >= guestAllocation ? 0 : Int(guestAllocation - inFlight)
  }

  func noteSent(_ count: Int) { sent &+= UInt32(count) }

  /// The fields of a packet to the guest that say how its bytes fare.
  func tell(in packet: inout SocketPacket) {
    packet.allocation = Self.allocation
    packet.forwarded = forwarded
    toldForwarded = forwarded
  }

  /// Whether the guest should hear that its bytes are gone, lest it waits for that.
  var owesCredit: Bool { forwarded &- toldForwarded >= Self.allocation / 2 }

  // MARK: bytes for the host

  var hasPending: Bool { pendingStart < pending.count }

  /// Takes bytes of the guest; false: more than there was room for.
  func append(_ reader: inout SegmentReader, _ count: Int) -> Bool {
    guard pending.count - pendingStart + count <= Int(Self.allocation) else { return false }
    if pendingStart > 0 {
      pending.removeFirst(pendingStart)
      pendingStart = 0
    }
    var rest = count
    while rest > 0, let piece = reader.next(limit: rest) {
      pending.append(contentsOf: piece)
      rest -= piece.count
    }
    return rest == 0
  }

  /// Writes what the host's side takes; false: it is gone.
  func flush() -> Bool {
    while hasPending {
      let count = pending.withUnsafeBytes {
        send(
          descriptor, $0.baseAddress! + pendingStart, pending.count - pendingStart, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
      }
      if count < 0 {
        if errno == EINTR { continue }
        return errno == EAGAIN
      }
      pendingStart += count
      forwarded &+= UInt32(count)
    }
    pending.removeAll(keepingCapacity: pending.capacity <= 64 << 10)
    pendingStart = 0
    return true
  }
}
