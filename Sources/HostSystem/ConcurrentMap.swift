import Foundation
import Synchronization

extension Array where Element: Sendable {
  /// What `body` makes of each element, several at a time. All are done even where one fails; the first error in their order
  /// is thrown then.
  public func mapConcurrently<Result: Sendable>(_ body: @Sendable (Element) throws -> Result) throws -> [Result] {
    let results = Mutex([Swift.Result<Result, any Error>?](repeating: nil, count: count))
    DispatchQueue.concurrentPerform(iterations: count) { number in
      let result = Swift.Result { try body(self[number]) }
      results.withLock { $0[number] = result }
    }
    return try results.withLock { try $0.map { try $0!.get() } }
  }
}
