import ArgumentParser
import Connector
import Glibc
import Logging
import Logs
import Management
import Reactor

/// `tgt-connect`: what it is told on the command line.
@main
struct TgtConnect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tgt-connect",
        abstract: "Leads initiators of this host to iSCSI portals behind TLS.",
        discussion: """
            No initiator speaks TLS. tgt-connect listens on the loopback, connects to a portal by TLS for each connection that it accepts, makes \
            sure that it is the right portal, shows a certificate or a pre-shared key, and carries the bytes. It reads its settings once, gives \
            its privileges up, and stays in the foreground until SIGTERM or SIGINT. At SIGHUP it reads the certificates, keys and revocation lists \
            anew that the settings name: all of them are right, or it goes on with those that it has. Connections that stand go on.

            Whoever can connect to where it listens is this host to the portal: CHAP tells users of one host apart.
            """,
        version: "tgt-connect \(version)")

    @Option(name: [.short, .long], help: ArgumentHelp("The settings.", valueName: "file"))
    var config = ConnectorProgram.defaultSettings

    @Flag(help: "Read the settings and every file they name, say whether all is well, and end.")
    var check = false

    @Flag(help: "Write the configuration of stunnel that does the same, and end.")
    var printStunnel = false

    @Flag(name: [.short, .long], help: "Log every connection.")
    var verbose = false

    static func main() {
        let words = CommandLine.arguments.dropFirst()
        if words.first == FileKeeper.word { Glibc.exit(FileKeeper.run(words.dropFirst())) }
        main(nil)
    }

    func run() throws {
        Signal.ignore([Signal.pipe])
        LoggingSystem.bootstrap { _ in StandardErrorLog(program: "tgt-connect") }
        if verbose { StandardErrorLog.level.store(.debug) }
        let log = Logger(label: "tgt-connect")
        do {
            let settings = try ConnectorProgram.settings(config)
            if check || printStunnel { try ConnectorProgram.check(settings) }
            if printStunnel { Console.output(settings.stunnel) }
            if check { Console.output("\(config): all is well; portals: \(settings.portals.count)\n") }
            if check || printStunnel { return }
            let code = ConnectorProgram.run(settings, log: log)
            if code != 0 { throw ExitCode(code) }
        } catch let code as ExitCode {
            throw code
        } catch {
            log.critical("\(error)")
            throw ExitCode.failure
        }
    }
}
