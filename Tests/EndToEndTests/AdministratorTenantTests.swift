import Foundation
import Glibc
import Testing

/// What policy allows and what a tenant is, through the socket.
@Suite(.enabled(if: Subject.isPortcullis && geteuid() == 0, "other users are root's to become")) struct AdministratorTenantTests {
    /// For each role what it may do for the tenant `red`: with what is red's, and with what is blue's. `y`: it is done, or fails for a reason of its own. `n`: no grant
    /// has a role that may. `w`: it is about all tenants. `-`: it is not there.
    private static let table = """
                                                                                        administrator  tenant-administrator  operator  auditor  observer
        --op show --mode system                                                         yy             yy                    yy        yy       yy
        --op stat --mode system                                                         yy             yy                    yy        yy       yy
        --op update --mode system --name State --value ready                            ww             nn                    nn        nn       nn
        --op new --mode target --tid T5 -T iqn.2026-11.org.example:N-ROLE               y-             y-                    nn        nn       nn
        --op show --mode target                                                         yy             yy                    yy        yy       yy
        --op show --mode target --tid T0                                                y-             y-                    y-        y-       y-
        --op update --mode target --tid T0 --name nop_count --value 0                   y-             y-                    y-        nn       nn
        --op update --mode target --tid T0 --name RequireTLS --value No                 y-             y-                    nn        nn       nn
        --op bind --mode target --tid T0 --initiator-name iqn.x:ROLE                    y-             y-                    nn        nn       nn
        --op unbind --mode target --tid T0 --initiator-address ALL                      y-             y-                    nn        nn       nn
        --op stat --mode target --tid T0                                                y-             y-                    y-        y-       y-
        --op delete --mode target --tid T9                                              --             --                    nn        nn       nn
        --op new --mode logicalunit --tid T0 --lun LUN --bstype null -b /x              y-             y-                    nn        nn       nn
        --op update --mode logicalunit --tid T0 --lun 1 --params thin_provisioning=1    y-             y-                    y-        nn       nn
        --op update --mode logicalunit --tid T0 --lun 1 --params readonly=0             y-             y-                    nn        nn       nn
        --op stat --mode logicalunit --tid T0 --lun 1                                   y-             y-                    y-        y-       y-
        --op show --mode portal                                                         yy             yy                    yy        yy       yy
        --op delete --mode portal --param portal=192.0.2.77:1                           ww             nn                    nn        nn       nn
        --op new --mode account --user n-ROLE --password a-secret-of-N                  y-             y-                    nn        nn       nn
        --op show --mode account                                                        yy             yy                    yy        yy       nn
        --op bind --mode account --user N --tid T0                                      y-             y-                    nn        nn       nn
        --op show --mode connection --tid T0                                            y-             y-                    y-        y-       y-
        --op show --mode lld                                                            yy             yy                    yy        yy       yy
        --op stop --mode lld                                                            ww             nn                    nn        nn       nn
        --op explain --mode access --tid T0 --initiator-name iqn.x --initiator-address 192.0.2.1  y-  y-                    y-        y-       nn
        --op show --mode access                                                         ww             nn                    ww        ww       nn
        --op explain --mode policy                                                      yy             yy                    yy        yy       nn
        --op explain --mode policy --user root                                          ww             ww                    ww        ww       nn
        """

    @Test("Every role through the socket: its own, others', and the whole")
    func roles() throws {
        let roles = ["administrator", "tenant-administrator", "operator", "auditor", "observer"]
        let users = [1, 2, 5, 8, 9]
        let it = try Administered(grants: zip(users, roles).map { "  - {users: [\($0)], role: \($1), tenant: red, authenticate: no}\n" }.joined())
        for (tid, name) in [(100, "red"), (200, "blue")] {
            #expect(try it.tgtadm(0, Administered.target(tid, "\(name)-0")).succeeded, it.daemon.evidence)
            #expect(try it.tgtadm(0, "--op new --mode logicalunit --tid \(tid) --lun 1 --bstype null -b /x").succeeded, it.daemon.evidence)
            #expect(try it.tgtadm(0, "--op new --mode account --user \(name) --password a-secret-of-\(name) --tenant \(name)").succeeded, it.daemon.evidence)
        }
        var asked = 0
        let rows = Self.table.split(separator: "\n").dropFirst().map { $0.split(separator: " ").map(String.init) }
        for (column, (uid, role)) in zip(users, roles).enumerated() {
            for (own, (hundreds, name)) in [(true, ("1", "red")), (false, ("2", "blue"))] {
                for row in rows {
                    let expected = row[row.count - 5 + column].dropFirst(own ? 0 : 1).first
                    let isBinding = row.contains("bind") && row.contains("account")
                    if isBinding, column > 0, expected == "y" { _ = try it.tgtadm(0, "--op unbind --mode account --user red --tid 100") }
                    if row.contains("unbind"), own, expected == "y" { _ = try it.tgtadm(0, "--op bind --mode target --tid 100 --initiator-address ALL") }
                    var line = row.dropLast(5).joined(separator: " ").replacingOccurrences(of: "T5", with: "\(hundreds)0\(column + 5)").replacingOccurrences(of: "T0", with: "\(hundreds)00")
                    line = line.replacingOccurrences(of: "T9", with: "\(hundreds)99").replacingOccurrences(of: "ROLE", with: role).replacingOccurrences(of: "LUN", with: "\(column + 5)")
                    line = line.split(separator: " ").map { $0 == "N" ? name : $0.replacingOccurrences(of: "N-", with: "\(name)-").replacingOccurrences(of: "of-N", with: "of-\(name)") }.joined(separator: " ")
                    if line.contains("--op new --mode account"), !own { line += " --tenant blue" }
                    asked += 1
                    let finished = try it.tgtadm(uid, line)
                    let letter: Character =
                        if finished.succeeded { "y" } else if finished.output.contains("has a role that may do this") { "n" }
                        else if finished.output.contains("it is about all tenants") { "w" } else { "-" }
                    #expect(letter == expected, "\(role): \(line)\n\(finished.evidence)")
                    if uid != 0, letter == "y" { #expect(!finished.output.contains("blue") && !finished.output.contains("Target 200"), "\(role): \(line)\n\(finished.evidence)") }
                }
            }
        }
        print("\(asked) requests of five roles through the socket")
        // What is blue's is as it was.
        let blue = try it.tgtadm(0, "--op show --mode target --tid 200").output + it.tgtadm(0, Administered.show).output
        #expect(blue.contains("Target 200: iqn.2026-11.org.example:blue-0") && !blue.contains("blue-administrator") && !blue.contains("Target 205"), "\(blue)")
    }

    @Test("A tenant's targets are listed and reached through its portals alone, also when the policy changes")
    func portals() throws {
        let grants = "  - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}\n"
        let it = try Administered(grants: grants, portals: 2)
        func tenants(_ portals: [Int]) -> String {
            Administered.tenants.replacingOccurrences(of: "    tids: 100-199\n", with: "    tids: 100-199\n    portals: [\(portals.map { "\"127.0.0.1:\($0)\"" }.joined(separator: ", "))]\n")
        }
        let (first, second) = (it.daemon.ports[0], it.daemon.ports[1])
        #expect(try it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded && it.tgtadm(0, Administered.target(1, "other")).succeeded, it.daemon.evidence)
        for (uid, tid) in [(Administered.mail, 100), (0, 1)] {
            #expect(try it.tgtadm(uid, "--op new --mode logicalunit --tid \(tid) --lun 1 --bstype null -b /x").succeeded)
            #expect(try it.tgtadm(uid, "--op bind --mode target --tid \(tid) --initiator-address ALL").succeeded)
        }
        func listed(_ port: Int) throws -> [String] {
            let list = try run("iscsi-ls", "iscsi://127.0.0.1:\(port)", folder: it.daemon.folder).output
            return ["red", "other"].filter { list.contains("Target:iqn.2026-11.org.example:\($0) ") }
        }
        func login(_ port: Int, _ name: String) throws -> UInt16? { try Initiator(port: port).login(target: "iqn.2026-11.org.example:\(name)") }
        // Without portals: everywhere, and it is shown none.
        #expect(try listed(first) == ["red", "other"] && listed(second) == ["red", "other"])
        #expect(try it.tgtadm(Administered.mail, "--op show --mode portal").output.isEmpty)
        #expect(try login(second, "red") == 0)

        try it.reload(grants: grants, tenants: tenants([first]))
        #expect(try listed(first) == ["red", "other"] && listed(second) == ["other"], it.daemon.evidence)
        #expect(try login(first, "red") == 0 && login(second, "red") == 0x0203 && login(second, "other") == 0, it.daemon.evidence)
        #expect(it.daemon.log.contains("through a portal that is none of the target's tenant"))
        let shown = try it.tgtadm(Administered.mail, "--op show --mode portal").output
        #expect(shown.contains("127.0.0.1:\(first)") && !shown.contains("\(second)"), "\(shown)")
        let explained = try it.tgtadm(Administered.mail, "--op explain --mode access --tid 100 --initiator-name iqn.x --initiator-address 127.0.0.1").output
        #expect(explained.contains("    through the portals 127.0.0.1:\(first)\n"), "\(explained)")

        // A session that lives.
        let living = try Initiator.login(port: first, target: "iqn.2026-11.org.example:red", isid: 7)
        try living.settle()
        let others = try Initiator.login(port: first, target: "iqn.2026-11.org.example:other", isid: 8)
        try others.settle()
        try it.reload(grants: grants, tenants: tenants([second]))
        #expect(living.wire.closes(within: 5), it.daemon.evidence)
        #expect(try others.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        #expect(try login(first, "red") == 0x0203 && login(second, "red") == 0)
    }
}
