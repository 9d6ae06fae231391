/// Frames from the guest (virtio 1.2, 5.1.6.2).
extension VirtioNet {
  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    if index == controlQueueIndex, features & Feature.controlQueue != 0 {
      transport?.process(index) { try self.serveControl($0) }
    } else if index % 2 == 1, index < 2 * queuePairs {
      transport?.process(index) { try self.transmit($0) }
    } else if index < 2 * queuePairs {
      receiveBuffersAdded(index)
    }
  }

  private func transmit(_ chain: DescriptorChain) throws -> UInt32 {
    var reader = chain.reader
    guard let header = NetHeader(&reader) else {
      throw VirtqueueError.requestMalformed("a frame to transmit that is shorter than its header")
    }
    let count = reader.remaining
    var isSent = false
    if (14...65536 + 18).contains(count) {
      let frame = UnsafeMutableRawBufferPointer(rebasing: transmitFrame[..<count])
      isSent = reader.read(into: frame) && transmit(frame, header)
    }
    if !isSent { counters.withLock { $0.transmitErrors += 1 } }
    return 0
  }

  /// False: the frame isn't what its header says, or too large for the link, and is dropped, as a link would.
  private func transmit(_ frame: UnsafeMutableRawBufferPointer, _ header: NetHeader) -> Bool {
    if header.segmentation != NetHeader.Segmentation.none {
      let whole = UnsafeRawBufferPointer(frame)
      guard let segmentation = TCPSegmentation(frame: whole, header: header, mtu: mtu) else { return false }
      segmentation.forEachSegment(of: whole, in: segmentFrame) { send($0) }
      return true
    }
    // Ethernet header and up to two VLAN tags come on top of the link's MTU.
    guard frame.count <= mtu + 22 else { return false }
    if header.flags & NetHeader.needsChecksum != 0 {
      let start = Int(header.checksumStart)
      let field = start + Int(header.checksumOffset)
      guard field + 2 <= frame.count else { return false }
      // The field holds the pseudo header's sum, which thus gets into the checksum.
      var checksum = InternetChecksum()
      checksum.add(UnsafeRawBufferPointer(rebasing: frame[start...]))
      frame.storeBytes(of: checksum.foldedNonzero, toByteOffset: field, as: UInt16.self)
    }
    send(UnsafeRawBufferPointer(frame))
    return true
  }

  private func send(_ frame: UnsafeRawBufferPointer) {
    counters.withLock {
      $0.framesTransmitted += 1
      $0.bytesTransmitted += UInt64(frame.count)
    }
    backend.send(frame)
  }
}
