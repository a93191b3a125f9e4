import Glibc
import Management

// tgtadm: options through GNU getopt_long, one request or one transaction to the daemon, its answer, an exit code.

var line = TgtadmCommandLine()
let options = Options()
switch unsafe options.take(CommandLine.argc, CommandLine.unsafeArgv, &line) {
case .failure(let end): finish(end)
case .success(let strays):
    switch line.finish(strays: strays) {
    case .send(let command): carryOut(command)
    case .transact(let transaction): carryOut(transaction, options)
    case .exit(let end): finish(end)
    }
}
