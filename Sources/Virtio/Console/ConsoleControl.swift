/// Control messages, which tell of ports (virtio 1.2, 5.3.6.2).
extension VirtioConsole {
  private enum Event {
    static let deviceReady: UInt16 = 0
    static let deviceAdd: UInt16 = 1
    static let portReady: UInt16 = 3
    static let consolePort: UInt16 = 4
    static let resize: UInt16 = 5
    static let portOpen: UInt16 = 6
    static let portName: UInt16 = 7
  }

  /// While so many messages wait for the driver's buffers, its own aren't taken.
  private static let pendingLimit = 256

  func receiveControl() {
    transport?.process(Self.controlTransmitQueue) { chain in
      guard self.pendingControl.count < Self.pendingLimit else { return nil }
      var reader = chain.reader
      guard let port = reader.read(UInt32.self), let event = reader.read(UInt16.self),
        let value = reader.read(UInt16.self)
      else {
        throw VirtqueueError.requestMalformed("a console control message that is shorter than its header")
      }
      self.handleControl(port: port, event: event, value: value)
      return 0
    }
  }

  private func handleControl(port number: UInt32, event: UInt16, value: UInt16) {
    if event == Event.deviceReady {
      guard value == 1 else { return }
      for index in ports.indices { sendControl(port: index, Event.deviceAdd, value: 0) }
      return
    }
    guard let port = Int(exactly: number), port < ports.count else { return }
    switch event {
    case Event.portReady:
      ports[port].isReady = value == 1
      if value == 1 { describe(port: port) }
    case Event.portOpen:
      ports[port].isOpenInGuest = value == 1
      if value == 1 { offerRoom(port: port) }
    default: break
    }
  }

  private func describe(port index: Int) {
    let port = ports[index]
    if port.isConsole { sendControl(port: index, Event.consolePort, value: 1) }
    if !port.configuration.name.isEmpty {
      sendControl(port: index, Event.portName, value: 1, Array(port.configuration.name.utf8))
    }
    sendControl(port: index, Event.portOpen, value: 1)
    ports[index].toldSize = nil
    tellSize(port: index)
  }

  func sendResize(port: Int, _ size: Size) {
    // Only the last size counts, however often a window changes while the driver doesn't look.
    let header = message(port: port, Event.resize, value: 0)
    pendingControl.removeAll { $0.starts(with: header) }
    sendControl(
      port: port, Event.resize, value: 0,
      [
        UInt8(truncatingIfNeeded: size.columns), UInt8(truncatingIfNeeded: size.columns >> 8),
        UInt8(truncatingIfNeeded: size.rows), UInt8(truncatingIfNeeded: size.rows >> 8),
      ])
  }

  private func message(port: Int, _ event: UInt16, value: UInt16) -> [UInt8] {
    var bytes: [UInt8] = []
    withUnsafeBytes(of: UInt32(port).littleEndian) { bytes += $0 }
    withUnsafeBytes(of: event.littleEndian) { bytes += $0 }
    withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
    return bytes
  }

  private func sendControl(port: Int, _ event: UInt16, value: UInt16, _ data: [UInt8] = []) {
    pendingControl.append(message(port: port, event, value: value) + data)
    flushControl()
  }

  /// Gives pending messages to the driver, as far as it has buffers.
  func flushControl() {
    guard let transport, let queue = transport.queue(Self.controlReceiveQueue) else { return }
    let wasFull = pendingControl.count >= Self.pendingLimit
    var chain = DescriptorChain()
    var sent = 0
    do {
      while sent < pendingControl.count {
        guard try queue.pop(into: &chain) else {
          if queue.resumeNotifications() != 0 { continue }
          break
        }
        var writer = chain.writer
        let written = pendingControl[sent].withUnsafeBytes { writer.write($0) }
        queue.push(head: chain.head, written: UInt32(written))
        sent += 1
      }
    } catch {
      return transport.fail("\(error)")
    }
    pendingControl.removeFirst(sent)
    transport.interruptIfWanted(queue)
    if wasFull, sent > 0 { transport.processLater(Self.controlTransmitQueue) }
  }
}
