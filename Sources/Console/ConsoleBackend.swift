import HostSystem

/// The host's end of a guest console (a UART or a virtio console port). Everything happens on the machine's I/O thread,
/// except `write`, which may be called from any thread.
public protocol ConsoleBackend: AnyObject {
  /// Begins to work on `loop`. `input` is called with bytes for the guest and returns how many it took; the rest is
  /// offered again after `guestHasRoom`. `resize` is called with the terminal's columns and rows, at once and at
  /// each change; never, where there is no terminal.
  func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int,
    resize: @escaping (_ columns: Int, _ rows: Int) -> Void
  ) throws
  /// Output of the guest. Any thread; order among calls of one thread is kept.
  func write(_ bytes: UnsafeRawBufferPointer)
  /// The guest can take input again.
  func guestHasRoom()
  /// Writes out what is pending and gives the terminal back as it was.
  func stop()
}
