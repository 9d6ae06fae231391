import ArgumentParser
import Board
import Foundation
import HostSystem
import Yadori

/// Where a guest's time goes, as flags.
struct ProfileOptions: ParsableArguments {
  @Option(
    help: "Write where the guest's time went to this file: a table, or lines for a flame graph (NAME.folded).")
  var profile: String?

  @Option(
    help: ArgumentHelp(
      "Names for --profile and --perf-map: a System.map, /proc/kallsyms or ELF file. May be repeated.",
      valueName: "file"))
  var symbols: [String] = []

  @Flag(help: "Name translated code for perf, in /tmp/perf-PID.map.")
  var perfMap = false

  var isUsed: Bool { profile != nil || perfMap }

  /// What it takes of the host's files, beside the folder of `profile`.
  var kept: [Confinement.Kept] {
    symbols.map { .file($0, isReadOnly: true) } + (perfMap ? [.folder("/tmp", isReadOnly: false)] : [])
  }

  /// A profile to be written when the machine has ended.
  struct Output {
    let symbols: SymbolTable
    let file: AtomicFileWriter
  }

  /// Prepares the machine for what was asked for. The file is begun here, so that a run isn't in vain.
  func apply(to machine: VirtualMachine) throws -> Output? {
    guard profile != nil || perfMap else {
      guard symbols.isEmpty else {
        throw CommandFailure(.usage, "--symbols needs --profile or --perf-map, whose addresses it names")
      }
      return nil
    }
    let symbols = try self.symbols(of: machine.configuration.boot)
    if perfMap {
      do { try machine.writePerfMap(symbols: symbols) } catch let error as MachineError {
        throw CommandFailure(error.code, "--perf-map: \(error.message)")
      } catch { throw CommandFailure(.cannotCreate, "--perf-map: \(error)") }
    }
    guard let profile else { return nil }
    try machine.takeProfile()
    do { return Output(symbols: symbols, file: try AtomicFileWriter(path: profile)) } catch {
      throw CommandFailure(.cannotCreate, "--profile: \(error)")
    }
  }

  /// Writes the profile that the machine took.
  func write(_ output: Output?, of machine: VirtualMachine) throws {
    guard let output, let name = profile, let profile = machine.profile else { return }
    let text = name.hasSuffix(".folded") ? profile.foldedStacks(output.symbols) : profile.table(output.symbols)
    do {
      try output.file.write(text.utf8)
      try output.file.commit()
    } catch { throw CommandFailure(.cannotCreate, "--profile: \(error)") }
  }

  /// Those of the files named, and of what is booted where that is an ELF file.
  private func symbols(of boot: VirtualMachineConfiguration.Boot) throws -> SymbolTable {
    var table = SymbolTable()
    for path in symbols {
      let file: BootFile
      do { file = try BootFile(path: path) } catch {
        throw CommandFailure(.noInput, "--symbols: can't read '\(path)'; check its name and permissions")
      }
      do { table = table + (try SymbolTable(file)) } catch let error as BootError {
        throw CommandFailure(.data, "--symbols: \(error.message)")
      }
    }
    var booted = [boot.kernel]
    if case .file(let path) = boot.firmware { booted.append(path) }
    for case let path? in booted {
      if let file = try? BootFile(path: path), let elf = try? ELFFile(file.contents, name: path) {
        table = table + SymbolTable(elf)
      }
    }
    return table
  }
}
