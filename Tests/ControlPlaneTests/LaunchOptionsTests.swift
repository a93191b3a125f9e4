import Model
import Reactor
import Testing

@testable import ControlPlane

@Suite struct LaunchOptionsTests {
    private func options(_ words: String...) -> LaunchOptions? {
        guard case .run(let options) = LaunchOptions.parse(words) else { return nil }
        return options
    }

    @Test("tgt's options are read in all of getopt's spellings")
    func spellings() {
        #expect(options("-f", "-C", "7")?.controlPort == 7)
        #expect(options("-fC7")?.controlPort == 7)
        #expect(options("-fC7")?.mode == .foreground)
        #expect(options("--control-port=7")?.controlPort == 7)
        #expect(options("--control-port", "7")?.controlPort == 7)
        #expect(options("--contr", "7")?.controlPort == 7)
        #expect(options("-D")?.mode == .foreground)
        #expect(options()?.mode == .daemon)
        #expect(options("-t", "4", "-d", "1", "-p", "/x")?.ioThreads == 4)
        #expect(options("-t", "4", "-d", "1", "-p", "/x")?.debug == true)
        #expect(options("-t", "4", "-d", "1", "-p", "/x")?.pidFile == "/x")
    }

    @Test("The iSCSI driver's options are a word of their own")
    func driver() throws {
        let parsed = options("--iscsi", "portal=127.0.0.1:13260,portal=[::1],portal=10.1.2.3,nop_interval=5,nop_count=6,")
        #expect(try parsed?.portals == ["127.0.0.1:13260", "[::1]:3260", "10.1.2.3:3260"].map { try Portal(parsing: Array($0.utf8)) })
        #expect(parsed?.nopInterval == 5 && parsed?.nopCount == 6)
        #expect(options("--iscsi=portal=127.0.0.1") == nil)
        let secure = options("--iscsi", "portal=127.0.0.1,portal=[::1]:1,tls=required,psk-file=/p,nop_count=6,tpgt=2")?.portals
        #expect(secure?.map(\.description) == ["127.0.0.1:3260", "[::1]:1"] && secure?[0].tls == nil && secure?[1].tls?.preSharedKeys?.text == "/p" && secure?[1].groupTag == 2)
    }

    @Test(
        "Exit codes are tgt's: 1 unknown, 34 out of range, 22 invalid",
        arguments: [
            (["--nonsense"], 1), (["-x"], 1), (["stray"], 1), (["-C"], 1), (["--iscsi=portal=x"], 1), (["--foreground=1"], 1),
            (["-C", "32768"], 34), (["-C", "-1"], 34), (["-t", "0"], 34), (["-d", "2"], 34), (["--iscsi", "nop_count=101"], 34),
            (["-C", "x"], 22), (["--iscsi", "portal=nowhere"], 22), (["--iscsi", "colour=red"], 22), (["--iscsi", "portal=127.0.0.1,colour=red"], 22), (["--iscsi", "portal=127.0.0.1,tls=required"], 22), (["--iscsi", "tls=required"], 22), (["--state", "here"], 22), (["--policy", "here"], 22), (["--socket-mode", "999"], 22), (["--socket-mode", "066"], 22),
        ] as [([String], Int32)])
    func refusals(words: [String], code: Int32) {
        guard case .refuse(_, let got) = LaunchOptions.parse(words) else {
            Issue.record("accepted")
            return
        }
        #expect(got == code)
    }

    @Test("-V prints the bare version, -h the usage")
    func says() {
        #expect(LaunchOptions.parse(["-V"]) == .say(LaunchOptions.version + "\n"))
        #expect(LaunchOptions.parse(["-f", "--help"]) == .say(LaunchOptions.usage))
    }
}
