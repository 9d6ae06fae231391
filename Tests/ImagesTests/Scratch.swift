import Foundation
import HostSystem
import Images
import Testing

/// An empty folder that goes with the test.
final class Scratch {
  let path: String

  init() {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-images-\(UUID().uuidString)").path
    try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  subscript(_ name: String) -> String { "\(path)/\(name)" }

  /// Everything below a folder of this one, by relative path.
  func names(in folder: String = "") -> [String] {
    (FileManager.default.enumerator(atPath: self[folder])?.allObjects as? [String] ?? []).sorted()
  }

  func bytes(_ name: String) -> [UInt8]? { FileManager.default.contents(atPath: self[name]).map { [UInt8]($0) } }

  @discardableResult
  func put(_ bytes: [UInt8], at name: String) throws -> String {
    let url = URL(fileURLWithPath: self[name])
    try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(bytes).write(to: url)
    return url.path
  }

  @discardableResult
  func put(_ text: String, at name: String) throws -> String { try put(Array(text.utf8), at: name) }
}

/// What a program of the host makes of `input`.
func filter(_ program: String, _ arguments: String..., input: [UInt8]) throws -> [UInt8] {
  let outcome = try Subprocess.runAndWait(program, arguments, input: Data(input))
  try #require(outcome.succeeded, "\(program): \(outcome.errorText)")
  return [UInt8](outcome.output)
}

func sha256(_ bytes: [UInt8]) -> String { Checksum.hexadecimal(.sha256, of: bytes) }

/// Bytes that don't compress, the same for each seed.
func noise(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  var state = seed
  return (0..<count).map { _ in
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return UInt8(truncatingIfNeeded: state >> 56)
  }
}

/// The error that `body` throws, which must be an `ImageError` of one line.
@discardableResult
func imageError(
  _ code: ImageError.Code, says words: String..., from body: () throws -> Void,
  location: SourceLocation = #_sourceLocation
) -> ImageError? {
  do {
    try body()
    Issue.record("no error", sourceLocation: location)
  } catch let error as ImageError {
    #expect(error.code == code, "\(error)", sourceLocation: location)
    #expect(!error.message.contains("\n"), "\(error)", sourceLocation: location)
    for word in words { #expect(error.message.contains(word), "\(error)", sourceLocation: location) }
    return error
  } catch {
    Issue.record("another error: \(error)", sourceLocation: location)
  }
  return nil
}
