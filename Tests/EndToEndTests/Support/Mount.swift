import Foundation
import Glibc

/// File systems of a daemon's own.
enum Mount {
    static let mayLoop = unsafe geteuid() == 0 && access("/dev/loop-control", F_OK) == 0

    /// In a mount namespace of its own: what `mount` says is at $place, a name in the daemon's folder.
    static func wrapper(_ mount: String, at place: String) -> [String] {
        ["unshare", "--mount", "--propagation", "private", "sh", "-c",
         "folder=$(dirname \"$TGT_IPC_SOCKET\"); place=$folder/\(place); mkdir -p -m 700 $place && \(mount) && exec \"$@\"", "sh"]
    }

    static let ext4 = "{ test -e $folder/image || { truncate -s 24M $folder/image && mke2fs -q -t ext4 $folder/image; }; } && mount -o loop $folder/image $place && chmod 700 $place"
}

extension Daemon {
    /// Runs a program that sees what this one has mounted.
    @discardableResult
    func inside(_ words: String...) throws -> Finished {
        try Running(["nsenter", "--mount", "--target", "\(process.pid)"] + words, folder: folder).wait(seconds: 30)
    }
}
