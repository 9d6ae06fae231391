/// The ports' data queues (virtio 1.2, 5.3.6).
extension VirtioConsole {
  /// Handed to a backend in one call at most.
  private static let largestWrite = 65536

  static let controlReceiveQueue = 2
  static let controlTransmitQueue = 3

  /// Queues 0 and 1 are port 0's, 2 and 3 carry control messages, then come the other ports' (5.3.2).
  static func receiveQueue(port: Int) -> Int { port == 0 ? 0 : 2 * port + 2 }

  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    switch index {
    case Self.controlReceiveQueue: flushControl()
    case Self.controlTransmitQueue: receiveControl()
    default:
      let port = index < 2 ? 0 : index / 2 - 1
      if index % 2 == 0 { offerRoom(port: port) } else { output(queue: index, port: port) }
    }
  }

  private func output(queue index: Int, port: Int) {
    let backend = ports[port].configuration.backend
    transport?.process(index) { chain in
      var reader = chain.reader
      while let piece = reader.next(limit: Self.largestWrite) { backend.write(piece) }
      self.counters.withLock { $0.bytesOut += UInt64(chain.readableCount) }
      return 0
    }
  }

  /// Hands input to the guest; how many bytes it had room for.
  func input(_ bytes: UnsafeRawBufferPointer, port: Int) -> Int {
    guard let transport, let queue = transport.queue(Self.receiveQueue(port: port)),
      !isMultiport || ports[port].isOpenInGuest
    else {
      ports[port].backendWaits = true
      return 0
    }
    var done = 0
    var chain = DescriptorChain()
    do {
      while done < bytes.count {
        guard try queue.pop(into: &chain) else {
          if queue.resumeNotifications() != 0 { continue }
          ports[port].backendWaits = true
          counters.withLock { $0.inputStalls += 1 }
          break
        }
        var writer = chain.writer
        let written = writer.write(UnsafeRawBufferPointer(rebasing: bytes[done...]))
        queue.push(head: chain.head, written: UInt32(written))
        done += written
      }
    } catch {
      transport.fail("\(error)")
      ports[port].backendWaits = true
      return done
    }
    transport.interruptIfWanted(queue)
    counters.withLock { $0.bytesIn += UInt64(done) }
    return done
  }

  /// The guest may have room for input: lets a backend that waits for this try again.
  func offerRoom(port: Int) {
    guard let queue = transport?.queue(Self.receiveQueue(port: port)), !isMultiport || ports[port].isOpenInGuest
    else { return }
    guard ports[port].backendWaits else { return queue.suppressNotifications() }
    ports[port].backendWaits = false
    ports[port].configuration.backend.guestHasRoom()
  }
}
