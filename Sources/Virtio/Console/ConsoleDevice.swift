import Bus
import Console
import Synchronization

/// A console with one port or several (virtio 1.2, 5.3), each over a `ConsoleBackend`, which stays the caller's to stop.
///
/// Port 0 is the console (hvc0 in Linux). With a single port, VIRTIO_CONSOLE_F_MULTIPORT isn't offered: the terminal's
/// size then reaches the driver through the configuration space. (In the control message, Linux before 6.15 reads
/// columns and rows in the wrong order.)
public final class VirtioConsole: VirtioDevice {
  enum Feature {
    static let size: UInt64 = 1 << 0
    static let multiport: UInt64 = 1 << 1
    static let emergencyWrite: UInt64 = 1 << 2
  }

  /// Offsets in the configuration space (5.3.4).
  enum Field {
    static let columns = 0
    static let rows = 2
    static let portCount = 4
    static let emergencyWrite = 8
    static let count = 12
  }

  /// What serves a port.
  public struct PortConfiguration {
    public let backend: any ConsoleBackend
    /// The name by which guest programs find the port (/dev/virtio-ports/NAME in Linux); may be empty.
    public let name: String
    /// Whether the guest shows a terminal here (hvc1 and so on). Port 0 is one always.
    public let isConsole: Bool

    public init(backend: any ConsoleBackend, name: String = "", isConsole: Bool = false) {
      self.backend = backend
      self.name = name
      self.isConsole = isConsole
    }
  }

  struct Size: Codable, Equatable {
    var columns: UInt16
    var rows: UInt16
  }

  /// A port as it runs. The I/O thread's.
  struct Port {
    let configuration: PortConfiguration
    let isConsole: Bool
    /// The driver knows the port, and a program of the guest has it open.
    var isReady = false
    var isOpenInGuest = false
    /// The backend holds input and waits to be told of room.
    var backendWaits = false
    var size: Size?
    /// The size in the last control message.
    var toldSize: Size?
  }

  public let deviceType = VirtioDeviceType.console
  public let pciClassCode: UInt32 = 0x07_80_00
  public let deviceFeatures: UInt64
  public let queueMaximumSizes: [UInt16]
  public let configuration = ConfigurationSpace(count: Field.count)
  public let stateIdentifier = "console"

  let emergencyBackend: any ConsoleBackend
  let counters = Mutex(ConsoleMetrics())
  weak var transport: VirtioTransport?
  var features: UInt64 = 0
  var ports: [Port]
  /// Control messages for which the driver gave no buffers yet.
  var pendingControl: [[UInt8]] = []

  /// `ports` has 1 to 31 entries; the first is the console.
  public init(ports: [PortConfiguration], queueSize: UInt16 = 64) {
    precondition((1...31).contains(ports.count))
    self.ports = ports.enumerated().map { index, port in
      Port(configuration: port, isConsole: index == 0 || port.isConsole)
    }
    emergencyBackend = ports[0].backend
    deviceFeatures = Feature.size | Feature.emergencyWrite | (ports.count > 1 ? Feature.multiport : 0)
    queueMaximumSizes = Array(repeating: queueSize, count: ports.count > 1 ? 2 * ports.count + 2 : 2)
    configuration.set(UInt32(ports.count), at: Field.portCount)
  }

  /// A single console.
  public convenience init(backend: any ConsoleBackend) { self.init(ports: [PortConfiguration(backend: backend)]) }

  public func attach(to transport: VirtioTransport) { self.transport = transport }

  public func startBackend() throws {
    guard let transport else { return }
    for index in ports.indices {
      try ports[index].configuration.backend.start(
        on: transport.loop,
        input: { [weak self] bytes in self?.input(bytes, port: index) ?? 0 },
        resize: { [weak self] columns, rows in self?.resized(port: index, columns: columns, rows: rows) })
    }
  }

  public func activate(features: UInt64) {
    self.features = features
    for index in ports.indices {
      tellSize(port: index)
      offerRoom(port: index)
    }
  }

  public func reset() {
    features = 0
    pendingControl = []
    for index in ports.indices {
      ports[index].isReady = false
      ports[index].isOpenInGuest = false
      ports[index].toldSize = nil
    }
  }

  /// A character written without any queue, for a guest in distress (5.3.6).
  public func configurationWritten(offset: UInt64, width: Int, value: UInt64) {
    guard offset == UInt64(Field.emergencyWrite) else { return }
    withUnsafeBytes(of: UInt8(truncatingIfNeeded: value)) { emergencyBackend.write($0) }
  }

  var isMultiport: Bool { features & Feature.multiport != 0 }

  private func resized(port index: Int, columns: Int, rows: Int) {
    ports[index].size = Size(columns: UInt16(clamping: columns), rows: UInt16(clamping: rows))
    tellSize(port: index)
  }

  /// Lets the driver know the terminal's size, if it has changed.
  func tellSize(port index: Int) {
    guard let size = ports[index].size else { return }
    if index == 0 {
      let isNew = configuration.update { bytes in
        bytes[Field.columns] = UInt8(truncatingIfNeeded: size.columns)
        bytes[Field.columns + 1] = UInt8(truncatingIfNeeded: size.columns >> 8)
        bytes[Field.rows] = UInt8(truncatingIfNeeded: size.rows)
        bytes[Field.rows + 1] = UInt8(truncatingIfNeeded: size.rows >> 8)
      }
      if isNew, !isMultiport { transport?.configurationChanged() }
    }
    if isMultiport, ports[index].isConsole, ports[index].isReady, ports[index].toldSize != size {
      ports[index].toldSize = size
      sendResize(port: index, size)
    }
  }
}
