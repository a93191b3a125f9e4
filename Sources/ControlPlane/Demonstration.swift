import Management
import Model
import Reactor

/// `tgtd --demo DIR`: one disk, one target, one portal on the loopback.
struct Demonstration {
    /// Absolute. It is there, and nobody else's.
    let directory: String
    let portals = ["127.0.0.1:3260"].compactMap { try? Portal(parsing: Array($0.utf8)) }

    private static let target = "iqn.2026-11.org.example:demo"
    private static let diskLength = 1 << 30
    private var disk: String { directory + "/disk.img" }

    init(_ path: String) throws {
        if path.hasPrefix("/") {
            directory = path
        } else {
            guard let current = Host.currentDirectory else { throw StartError("the current directory is gone") }
            directory = current + "/" + path
        }
        try Files.makeTrustedDirectory(directory)
    }

    /// Makes disk and target at the first run; then prints what to try.
    func build(_ control: Control, socketBase: String, print: @escaping (String) -> Void) {
        do {
            let isNew = try Files.makeSparse(disk, length: Self.diskLength)
            var unit = AdminRequest.NewLogicalUnit()
            unit.path = Array(disk.utf8)
            let isThere = control.configuration.sortedTargets.contains { $0.name.spelling == Self.target }
            let steps: [AdminRequest.Action] = isThere ? [] : [
                .newTarget(tid: 1, name: Array(Self.target.utf8)),
                .newLogicalUnit(tid: 1, lun: 1, unit),
                .bindInitiators(tid: 1, .init(address: Array("ALL".utf8))),
            ]
            run(steps[...], control) { failure in
                print(failure.map { "The demonstration cannot be built: \($0)\n" } ?? introduction(isNew: isNew, socketBase: socketBase))
            }
        } catch {
            print("The demonstration cannot be built: \(error)\n")
        }
    }

    private func run(_ steps: ArraySlice<AdminRequest.Action>, _ control: Control, _ whenDone: @escaping (String?) -> Void) {
        guard let step = steps.first else { return whenDone(nil) }
        control.submit(AdminRequest(step)) { answer in
            if let reason = answer.reason { return whenDone(reason) }
            run(steps.dropFirst(), control, whenDone)
        }
    }

    private func introduction(isNew: Bool, socketBase: String) -> String {
        """

        Portcullis serves \(disk) (1 GiB, \(isNew ? "new" : "as it was left")) on 127.0.0.1:3260. From another shell:

          iscsi-ls -s iscsi://127.0.0.1
          qemu-img info iscsi://127.0.0.1/\(Self.target)/1
          qemu-io -f raw -c 'write -P 0x5a 0 1M' -c 'read -P 0x5a 0 1M' iscsi://127.0.0.1/\(Self.target)/1
          TGT_IPC_SOCKET=\(socketBase) .build/release/tgtadm --mode target --op show

        Ctrl-C ends it; the disk stays.


        """
    }
}
