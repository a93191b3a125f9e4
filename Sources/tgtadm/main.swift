import Glibc
import Management

// tgtadm: options through GNU getopt_long, one request or one transaction to the daemon, its answer, an exit code.

var line = TgtadmCommandLine()
let options = Options()
let words = unsafe (0..<Int(CommandLine.argc)).compactMap { unsafe CommandLine.unsafeArgv[$0] }.map { unsafe bytes($0) }
switch options.take(words.first ?? Array("tgtadm".utf8), Array(words.dropFirst()), &line) {
case .failure(let end): finish(end)
case .success(let strays):
    switch finish(&line, strays) {
    case .needsSecret: finish(TgtadmExit(code: TgtadmExit.invalid))
    case .send(let command): carryOut(command)
    case .transact(let transaction): carryOut(transaction, options)
    case .exit(let end): finish(end)
    }
}
