/// Frames for the guest (virtio 1.2, 5.1.6.3 and 5.1.6.4).
extension VirtioNet {
  /// False: there are no buffers for it now, and the backend will be told when there are.
  func receive(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard frame.count >= 14, frame.count <= 65536 + 22, filter.accepts(frame, features: features) else {
      return dropped()
    }
    let index = 2 * receivePair(frame)
    // Without a driver a card has nowhere to put frames.
    guard let transport, let queue = transport.queue(index) else { return dropped() }
    do {
      var delivery = try fill(queue, with: frame)
      // The driver may add buffers between the last look and its being asked to notify.
      while case .noRoom(let waiting) = delivery {
        guard Int(queue.resumeNotifications()) > waiting else {
          backendWaits = true
          counters.withLock { $0.receiveStalls += 1 }
          return false
        }
        delivery = try fill(queue, with: frame)
      }
      guard case .delivered = delivery else { return dropped() }
    } catch {
      transport.fail("\(error)")
      return dropped()
    }
    transport.interruptIfWanted(queue)
    counters.withLock {
      $0.framesReceived += 1
      $0.bytesReceived += UInt64(frame.count)
    }
    return true
  }

  private func dropped() -> Bool {
    counters.withLock { $0.framesDropped += 1 }
    return true
  }

  private enum Delivery {
    case delivered
    /// The chains that wait in the queue aren't enough.
    case noRoom(waiting: Int)
    /// A single buffer must hold the frame, and doesn't.
    case tooLarge
  }

  private func fill(_ queue: Virtqueue, with frame: UnsafeRawBufferPointer) throws -> Delivery {
    let mayMerge = features & Feature.mergeableReceiveBuffers != 0
    let needed = NetHeader.count + frame.count
    var room = 0
    var used = 0
    while room < needed {
      if used == receiveChains.count { receiveChains.append(DescriptorChain()) }
      guard try queue.pop(into: &receiveChains[used]) else {
        queue.putBack(used)
        return .noRoom(waiting: used)
      }
      let capacity = receiveChains[used].writableCount
      guard used > 0 || capacity >= NetHeader.count else {
        throw VirtqueueError.requestMalformed("a receive buffer that is smaller than the header")
      }
      room += capacity
      used += 1
      if !mayMerge, room < needed {
        queue.putBack(used)
        return .tooLarge
      }
      // An empty buffer holds no part of a frame; without this, a driver's thousands of them would all be taken.
      guard capacity > 0 else { throw VirtqueueError.requestMalformed("an empty receive buffer") }
    }
    var header = NetHeader()
    header.bufferCount = UInt16(used)
    if features & Feature.guestChecksum != 0 { header.flags = NetHeader.dataValid }
    var done = 0
    for number in 0..<used {
      var writer = receiveChains[number].writer
      if number == 0 { header.write(to: &writer) }
      let written = writer.write(UnsafeRawBufferPointer(rebasing: frame[done...]))
      done += written
      queue.push(
        head: receiveChains[number].head, written: UInt32(written + (number == 0 ? NetHeader.count : 0)),
        publish: number == used - 1)
    }
    return .delivered
  }

  func receiveBuffersAdded(_ index: Int) {
    guard let queue = transport?.queue(index), queue.hasAvailable else { return }
    queue.suppressNotifications()
    guard backendWaits else { return }
    backendWaits = false
    backend.guestHasRoom()
  }

  /// Spreads flows over the pairs that the driver uses; the frames of a flow stay in order.
  private func receivePair(_ frame: UnsafeRawBufferPointer) -> Int {
    guard activePairs > 1, frame.count >= 54 else { return 0 }
    let isIPv6 = frame[12] == 0x86 && frame[13] == 0xdd
    // Addresses, and the ports where there are no options before them.
    var hash: UInt32 = 0x811c_9dc5
    for offset in isIPv6 ? 22..<min(58, frame.count) : 26..<38 {
      hash = (hash ^ UInt32(frame[offset])) &* 0x0100_0193
    }
    return Int(hash % UInt32(activePairs))
  }
}
