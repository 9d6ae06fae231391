import Foundation
import Glibc

/// A program of the host, run to its end.
package enum SystemCommand {
  package struct Result: Sendable {
    /// The exit status, or 128 and the number of the signal that ended it.
    package var status: Int32
    package var output: String
    package var errors: String
  }

  /// The full path of a program, as the shell would find it.
  package static func find(_ name: String) -> String? {
    if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
    for folder in path.split(separator: ":") {
      let candidate = "\(folder)/\(name)"
      if access(candidate, X_OK) == 0 { return candidate }
    }
    return nil
  }

  /// Runs `program` and waits. Its output goes through files in `folder`, so that it can never block on a pipe.
  ///
  /// - Parameter whileRunning: called about ten times a second; an error it throws ends the program first.
  package static func run(
    _ program: String, _ arguments: [String], in folder: String, whileRunning: () throws -> Void = {}
  ) throws -> Result {
    let stem = "\(folder)/command-\(UUID().uuidString)"
    let outputPath = stem + ".out"
    let errorsPath = stem + ".err"
    defer {
      unlink(outputPath)
      unlink(errorsPath)
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errorsPath, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    // Its own process group: ^C on our terminal reaches us only, and we end it.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // And no signal held back or ignored, as some threads and programs do: it couldn't be ended then.
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var endings = sigset_t()
    sigemptyset(&endings)
    for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&endings, number) }
    posix_spawnattr_setsigdefault(&attributes, &endings)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    var child = pid_t()
    var argv: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
    defer { argv.forEach { free($0) } }
    let failure = posix_spawn(&child, program, &actions, &attributes, &argv, environ)
    if failure != 0 { throw ImageError.failure(failure, "can't start \(program)") }
    var status: Int32 = 0
    while true {
      let ended = waitpid(child, &status, WNOHANG)
      if ended == child { break }
      if ended < 0 && errno != EINTR { throw ImageError.last("can't wait for \(program)") }
      do {
        try whileRunning()
      } catch {
        kill(child, SIGTERM)
        while waitpid(child, &status, 0) < 0 && errno == EINTR {}
        throw error
      }
      usleep(50_000)
    }
    let code = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
    return Result(status: code, output: text(outputPath), errors: text(errorsPath))
  }

  private static func text(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }
}
