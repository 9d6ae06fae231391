import Hart
import RISCV

/// Makes host code of traces. There is one for each kind of host processor (x86-64 so far); the rest of the room doesn't
/// know which it is, except for what the code's calls of slow paths look like, see `SiteDescription`.
///
/// Code goes into a `CodeMemory`: blocks one after the other into its first half, what they seldom execute into the
/// second, and where jumps lead that may be led elsewhere later among the stubs. A block's address fits 32 bits. Before a block is translated there must be room for it, see `hasRoom`.
protocol BackEnd: ~Copyable {
  /// Throws `HostError` where the host's processor lacks instructions that the code uses.
  static func checkHost() throws
  /// Whether the code for an instruction overwrites the host register that holds an access group's address.
  static func losesGroupAddress(_ instruction: Instruction) -> Bool

  /// Begins a code memory with what all blocks share.
  init(_ code: CodeMemory)

  /// Where entry points lead that have no block: out of generated code, with `ExitReason.dispatch`.
  var absent: UInt32 { get }
  /// Runs the block at `address`, and those it leads to, till one is left for the reason that is returned.
  func enter(_ state: UnsafeMutablePointer<HartState>, _ address: UInt32) -> ExitReason

  /// Translates the block that begins at half-word `index` of `page`, and returns its address. A block whose accesses
  /// aren't grouped is for whoever asks for it; jumps don't find it.
  ///
  /// - Parameters:
  ///   - nextHalf: for an instruction that begins with the page's last two bytes: its other half.
  ///   - mayRunOn: whether the block may run into the one that is reached next, see `following`.
  mutating func translate(
    _ page: UnsafeMutablePointer<CodePage>, _ translations: PageTranslations, _ index: Int, isGrouping: Bool,
    nextHalf: UInt16?, mayRunOn: Bool
  ) -> UInt32
  /// The block that was translated last: its trace, where its code ends, and the offset in the page of the one that it
  /// runs into, which has to be translated next; nil: it runs into none.
  var lastLength: Int { get }
  var here: UInt { get }
  var following: Int? { get }

  /// Whether there is room for so many more blocks.
  func hasRoom(forBlocks count: Int) -> Bool
  /// Bytes of code memory in use.
  var codeBytes: Int { get }

  // MARK: code that is kept

  /// Bytes at the code memory's begin that aren't blocks', a multiple of the page size: what all share, which holds
  /// addresses of this process. Blocks hold none.
  var sharedBytes: Int { get }
  /// Where the next block goes, counted from the code memory's begin, what stands behind it, from the middle, and the next
  /// stub, from where these begin.
  var frontBytes: Int { get }
  var behindBytes: Int { get }
  var stubBytes: Int { get }
  /// Has the next block go there, for what is before is another's code.
  mutating func goOn(front: Int, behind: Int, stubs: Int)
  /// Calls `body` for each of a page's jumps that wait for a block: the half-word that they go to, and where the jump can
  /// be led elsewhere, counted from the code memory's begin.
  func forEachWaiting(_ translations: PageTranslations, _ body: (_ index: Int, _ jump: Int) throws -> Void) rethrows
  /// Lets a block that lies there in the code memory be the one at half-word `index`, where that has none.
  mutating func addBlock(_ translations: PageTranslations, _ index: Int, at place: Int)
  /// Notes a jump that waits for the block at `index`.
  mutating func addWaiting(_ translations: PageTranslations, _ index: Int, _ place: Int)

  /// Forgets all blocks; the next one begins anew behind what all share.
  mutating func clear()

  /// How often places were reached that have no block.
  var heat: HeatTable { get set }
  /// Told where the code of each instruction is; nil where nobody wants to know.
  var map: CodeMap? { get }
  /// Has it keep a map from now on.
  mutating func keepMap(_ map: CodeMap)
}

/// The one for this host. On hosts of other kinds its `checkHost` throws, and the interpreter runs the harts.
typealias HostBackEnd = X86BackEnd
