extension TgtadmCommandLine {
    static let usage = """
        tgtadm administers the iSCSI target daemon tgtd.

        Usage: tgtadm [--control-port N] [--lld iscsi] --mode MODE --op OPERATION [OPTION...]

        Targets
          --mode target --op new --tid ID --targetname NAME
          --mode target --op delete [--force] --tid ID
                ends the target's sessions only with --force
          --mode target --op show [--tid ID]
                all targets, or the iSCSI keys of one
          --mode target --op update --tid ID --name KEY --value VALUE
                KEY: an iSCSI key, state, nop_interval, nop_count
          --mode target --op bind|unbind --tid ID [--initiator-address ADDRESS] [--initiator-name NAME]
                who may log in; ADDRESS: ALL, an address, or a network like 10.0.0.0/8;
                NAME: an initiator name, with * and ? as in file names.
                Nobody may without any; addresses and names must both match if both are given.
                The most specific rule that matches decides
          --mode target --op stat --tid ID

        Logical units
          --mode logicalunit --op new --tid ID --lun LUN --backing-store PATH
                [--bstype rdwr|null] [--bsoflags sync|direct|sync:direct] [--blocksize 512|4096]
          --mode logicalunit --op delete --tid ID --lun LUN
          --mode logicalunit --op update --tid ID --lun LUN --params KEY=VALUE[,KEY=VALUE...]
                KEY: online, readonly, removable, path, thin_provisioning, scsi_id, scsi_sn, vendor_id,
                product_id, product_rev, mode_page, rotation_rate, lbppbe, la_lba, optimal_xfer_gran,
                optimal_xfer_len, sense_format
          --mode logicalunit --op stat --tid ID --lun LUN

        Accounts
          --mode account --op new --user NAME [--password-file FILE] [--allow-weak]
                the secret is the text of FILE (-: standard input), or asked for at the terminal. It has at
                least 12 characters, with --allow-weak 1. With --password SECRET others on this host see it
          --mode account --op delete --user NAME
          --mode account --op show
          --mode account --op bind|unbind --user NAME [--tid ID] [--outgoing]
                without a target: for discovery

        Connections
          --mode connection --op show --tid ID
          --mode connection --op delete --tid ID --sid SESSION --cid CONNECTION
          --mode connection --op stat --tid ID --sid SESSION
          --mode session --op stat --tid ID --sid SESSION

        Portals and the system
          --mode portal --op new|delete --param portal=ADDRESS[:PORT]
          --mode portal --op show
          --mode system --op show|stat
          --mode system --op update --name State --value offline|ready
          --mode system --op update --name debug --value on|off
          --mode system --op delete
                ends the daemon; there must be no target
          --mode lld --op show

        With Portcullis's tgtd only
          --mode target --op bind --tid ID ... --luns LIST
                what the rule shows of the target: numbers and ranges like 0,2-5:ro,7, with :ro for
                reading only; all, all:ro. Without it: everything. A rule that is there gets the list
          --mode account --op generate --user NAME [--bits BITS]
                draws a secret for the account, new or there already, and shows it this once: 16 printable
                characters (96 bits), or as many as BITS take
          --mode account --op update --user NAME --add-secret [--password-file FILE] [--allow-weak]
          --mode account --op update --user NAME --retire-secret old|new
                an account may have two secrets while one takes the place of the other
          --mode account --op bind|unbind --user NAME --tid ID --initiator-name NAME
                for this initiator alone; no other account may use its name there then
          --mode target --op update --tid ID --name RequireTLS --value Yes|No
                whether the target is there only on portals with TLS
          --mode portal --op new --param portal=ADDRESS[:PORT],tls=required,certificate=FILE,key=FILE[,...]
          --mode portal --op update --param portal=ADDRESS[:PORT][,NAME=VALUE...]
                NAME: certificate, key (PEM); client-ca, crl (PEM), client-map (lines fingerprint
                initiator-name); psk-file (lines identity:key:initiator-name); client-auth=required|optional|none;
                policy=2026-11-strict|2026-11-compatible; advertise=ADDRESS:PORT, tpgt=N also in clear.
                An update reads all files anew; NAME= takes a parameter away; sessions go on
          --mode access --op explain --tid ID --initiator-name NAME --initiator-address ADDRESS [--user USER]
                [--tls yes|no]
                whether this initiator may log in, having authenticated as USER, and by which rules
          --mode access --op show
                who has to wait after failures to log in, and for how many seconds more
          --mode access --op delete --initiator-address ADDRESS
                forgets their failures: of an address, of a network (ADDRESS/LENGTH), of ALL
          --mode policy --op explain [--user NAME] [--tenant NAME]
                what the user of this host, or who asks, may do (with what is the tenant's), and by which
                lines of the policy
          --tenant NAME         with accounts: whose it is, where it could be of several tenants
          --answers FILE        answers to what PAM asks, a line each (-: standard input), in the place of
                                the terminal
          --json                with show, stat and explain: print JSON
          --transaction FILE    carry out the lines of FILE (-: standard input), each the options of
                                one tgtadm that changes something: all of them, or none

        -d, --debug             tell what is sent
        -C, --control-port N    speak to the daemon with this number
        -V, --version
        -h, --help

        """
}
