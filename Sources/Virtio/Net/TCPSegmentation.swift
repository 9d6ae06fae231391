/// Cutting one large TCP packet into frames that fit the link, as network hardware does for a system that leaves it to
/// the card (virtio 1.2, 5.1.6.2).
struct TCPSegmentation {
  private let networkOffset: Int
  private let transportOffset: Int
  private let payloadOffset: Int
  private let payloadPerSegment: Int
  private let isIPv6: Bool

  /// Finds the headers of `frame`, which nobody changes meanwhile. Nil when it isn't what `header` says.
  init?(frame: UnsafeRawBufferPointer, header: NetHeader, mtu: Int) {
    func word(_ offset: Int) -> UInt16 {
      UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    // Segments get new checksums, so the driver must have left this one to the device.
    guard header.flags & NetHeader.needsChecksum != 0, header.checksumOffset == 16, header.segmentSize > 0,
      frame.count >= 14
    else { return nil }
    var network = 14
    while word(network - 2) == 0x8100 || word(network - 2) == 0x88a8 {
      network += 4
      guard network <= 22, frame.count >= network else { return nil }
    }
    let etherType = word(network - 2)
    let transport = Int(header.checksumStart)
    switch header.segmentation & ~NetHeader.Segmentation.ecn {
    case NetHeader.Segmentation.tcp4:
      guard etherType == 0x0800, frame.count >= network + 20, frame[network] >> 4 == 4, frame[network + 9] == 6,
        frame[network] & 15 >= 5, network + Int(frame[network] & 15) * 4 == transport
      else { return nil }
      isIPv6 = false
    case NetHeader.Segmentation.tcp6:
      // Extension headers may stand between the two.
      guard etherType == 0x86dd, transport >= network + 40, frame.count >= network + 40, frame[network] >> 4 == 6
      else { return nil }
      isIPv6 = true
    default: return nil
    }
    guard frame.count >= transport + 20 else { return nil }
    let payload = transport + Int(frame[transport + 12] >> 4) * 4
    guard payload >= transport + 20, payload <= frame.count else { return nil }
    // A segment isn't larger than the link carries, whatever the driver says.
    let room = mtu - (payload - network)
    guard room > 0 else { return nil }
    networkOffset = network
    transportOffset = transport
    payloadOffset = payload
    payloadPerSegment = min(Int(header.segmentSize), room)
  }

  /// Builds each segment in `buffer`, which is as large as the frame at least, and hands it to `send`.
  func forEachSegment(
    of frame: UnsafeRawBufferPointer, in buffer: UnsafeMutableRawBufferPointer, _ send: (UnsafeRawBufferPointer) -> Void
  ) {
    func loadWord(_ offset: Int) -> UInt16 {
      UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    func store(_ value: UInt16, _ offset: Int) {
      buffer.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    }
    let firstSequence = UInt32(
      bigEndian: frame.loadUnaligned(fromByteOffset: transportOffset + 4, as: UInt32.self))
    let flags = frame[transportOffset + 13]
    let firstIdentification = isIPv6 ? 0 : loadWord(networkOffset + 4)
    buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: frame[..<payloadOffset]))
    var position = payloadOffset
    var number: UInt16 = 0
    repeat {
      let count = min(payloadPerSegment, frame.count - position)
      let isFirst = position == payloadOffset
      let isLast = position + count == frame.count
      let end = payloadOffset + count
      UnsafeMutableRawBufferPointer(rebasing: buffer[payloadOffset..<end])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: frame[position..<position + count]))
      let sequence = firstSequence &+ UInt32(position - payloadOffset)
      buffer.storeBytes(of: sequence.bigEndian, toByteOffset: transportOffset + 4, as: UInt32.self)
      // FIN and PSH belong to the end; CWR answers congestion once (RFC 3168, 6.1.2).
      buffer[transportOffset + 13] = flags & ~((isLast ? 0 : 0x09) | (isFirst ? 0 : 0x80))
      let segment = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<end])
      if isIPv6 {
        store(UInt16(truncatingIfNeeded: end - networkOffset - 40), networkOffset + 4)
      } else {
        store(UInt16(truncatingIfNeeded: end - networkOffset), networkOffset + 2)
        store(firstIdentification &+ number, networkOffset + 4)
        store(0, networkOffset + 10)
        var checksum = InternetChecksum()
        checksum.add(UnsafeRawBufferPointer(rebasing: segment[networkOffset..<transportOffset]))
        buffer.storeBytes(of: checksum.folded, toByteOffset: networkOffset + 10, as: UInt16.self)
      }
      store(0, transportOffset + 16)
      var checksum = InternetChecksum()
      let addresses = isIPv6 ? networkOffset + 8..<networkOffset + 40 : networkOffset + 12..<networkOffset + 20
      checksum.add(UnsafeRawBufferPointer(rebasing: segment[addresses]))
      checksum.add(6)
      checksum.add(UInt16(truncatingIfNeeded: end - transportOffset))
      checksum.add(UnsafeRawBufferPointer(rebasing: segment[transportOffset...]))
      buffer.storeBytes(of: checksum.folded, toByteOffset: transportOffset + 16, as: UInt16.self)
      send(segment)
      position += count
      number &+= 1
    } while position < frame.count
  }
}
