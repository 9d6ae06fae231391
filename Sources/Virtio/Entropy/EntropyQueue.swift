extension VirtioEntropy {
  /// More isn't given to one request; the driver asks again (5.4.6).
  private static let largestAnswer = 65536

  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    transport?.process(index) { chain in
      var writer = chain.writer
      var written = 0
      while let piece = writer.next(limit: Self.largestAnswer - written) {
        self.source(piece)
        written += piece.count
      }
      self.counters.withLock {
        $0.requests += 1
        $0.bytes += UInt64(written)
      }
      return UInt32(written)
    }
  }
}
