import Glibc

/// What the name service (passwd, group, and whatever directory stands behind them) says. It may take for ever: as PAM, it belongs into a process
/// of its own.
public enum NameService {
    /// The name of a user; nil: nobody has this number.
    public static func name(of uid: UInt32) -> [UInt8]? {
        unsafe getpwuid(uid).flatMap { unsafe $0.pointee.pw_name }.map { unsafe bytes($0) }
    }

    /// A user of this name with all its groups.
    public static func user(named name: String) -> (uid: UInt32, name: [UInt8], gids: [UInt32])? {
        guard let entry = unsafe getpwnam(name) else { return nil }
        let (uid, gid) = unsafe (entry.pointee.pw_uid, entry.pointee.pw_gid)
        let known = unsafe bytes(entry.pointee.pw_name)
        var count: Int32 = 4096
        var gids = [UInt32](repeating: 0, count: Int(count))
        guard unsafe getgrouplist(name, gid, &gids, &count) >= 0 else { return nil }
        return (uid, known, Array(gids.prefix(Int(count))))
    }

    /// The name of a group; nil: none has this number.
    public static func name(ofGroup gid: UInt32) -> [UInt8]? {
        unsafe getgrgid(gid).flatMap { unsafe $0.pointee.gr_name }.map { unsafe bytes($0) }
    }

    private static func bytes(_ text: UnsafePointer<CChar>) -> [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: text, count: strlen(text))) }
}
