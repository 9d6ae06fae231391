import Bus
import HostSystem

/// A virtio device, whatever transport carries it.
///
/// Which thread calls what:
/// - `deviceType`, `deviceFeatures` and `queueMaximumSizes` never change and are read on any thread;
/// - `configuration` guards itself; `configurationWritten` is called on hart threads and must neither block nor call
///   into the transport (it may hand work to the event loop);
/// - everything else happens on the machine's I/O thread, or before that runs.
///
/// Its `stateIdentifier` names the kind of device ("block"): the state is kept inside its transport's, which is unique.
public protocol VirtioDevice: StateKeeper {
  /// One of `VirtioDeviceType`.
  var deviceType: UInt32 { get }
  /// PCI class, subclass and programming interface for the PCI transport, as 0xCCSSPP.
  var pciClassCode: UInt32 { get }
  /// The device's own feature bits; the transport adds its own.
  var deviceFeatures: UInt64 { get }
  /// The largest size of each queue (a power of two); as many queues as entries, 64 at most.
  var queueMaximumSizes: [UInt16] { get }
  var configuration: ConfigurationSpace { get }

  /// Called once, when a transport takes the device. The device keeps a weak reference.
  func attach(to transport: VirtioTransport)
  /// Starts what serves the device on the host, if anything. Once. Throws what the backend throws.
  func startBackend() throws
  /// The driver is ready and `features` are agreed on. Queues can be used from here on. The device's own state is as
  /// after `reset`, or as restored.
  func activate(features: UInt64)
  /// The driver is gone: back to the initial state. Queues are gone already.
  func reset()
  /// The driver made buffers available on this queue, or may have.
  func queueNotified(_ index: Int)
  /// The driver wrote to the configuration space. `value` has `width` bytes (1, 2, 4 or 8). Hart threads.
  func configurationWritten(offset: UInt64, width: Int, value: UInt64)
}

extension VirtioDevice {
  public func startBackend() throws {}
  public func configurationWritten(offset: UInt64, width: Int, value: UInt64) {}
}
