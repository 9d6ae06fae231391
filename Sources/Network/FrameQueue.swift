/// Frames for a guest that has no room at the moment: so many, then further ones are lost, as on a wire.
struct FrameQueue {
  private var frames: [[UInt8]] = []
  private var head = 0
  private let capacity: Int

  init(capacity: Int) { self.capacity = capacity }

  var isEmpty: Bool { head == frames.count }

  mutating func append(_ frame: UnsafeRawBufferPointer) {
    guard frames.count - head < capacity else { return }
    frames.append(Array(frame))
  }

  /// Puts the frames of a later queue after those of this one.
  mutating func append(contentsOf later: FrameQueue) {
    for frame in later.frames[later.head...] { frame.withUnsafeBytes { append($0) } }
  }

  /// Hands frames over in order, for as long as `receive` takes them.
  mutating func drain(_ receive: (UnsafeRawBufferPointer) -> Bool) {
    while head < frames.count, frames[head].withUnsafeBytes(receive) {
      frames[head] = []
      head += 1
    }
    if head == frames.count || head >= capacity {
      frames.removeFirst(head)
      head = 0
    }
  }

  mutating func removeAll() {
    frames = []
    head = 0
  }
}
