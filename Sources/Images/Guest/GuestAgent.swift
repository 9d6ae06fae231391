/// The program in a guest that does what its host asks: it runs commands, and gives a cloned machine an identity of its
/// own. The host reaches it at a port of the guest's sockets (virtio-vsock), and nobody else does.
///
/// It is written in Perl, which every Debian has (`perl-base` is essential).
///
/// Each side sends frames: a letter, the number of its bytes (32 bits, big-endian), the bytes. The first one is the
/// host's, R: words that end with a zero byte, `key=value` each; it names a program to run, or, with `identity=1`, what the
/// machine is to be called from now on. Then from the host: I, input for the program, and E, its
/// end; W, the terminal's rows and columns; S, a signal's number. From the guest: B, the program has begun; C, how many
/// bytes of the input it has taken; O and D, its output and its diagnostics; X, its exit code, or K, the signal that
/// ended it; F, why it couldn't be run.
public enum GuestAgent {
  /// Where it listens. Only a guest's root can.
  public static let port: UInt32 = 1000
  /// Bytes of input that the host sends ahead of the program.
  public static let inputWindow = 256 << 10

  static let path = "usr/lib/yadori/agent"

  static let unit = """
    [Unit]
    Description=Runs commands for the host of this machine

    [Service]
    ExecStart=/\(path)
    Restart=always
    KillMode=process
    TasksMax=infinity

    [Install]
    WantedBy=multi-user.target

    """

  package static let program = #"""
    #!/usr/bin/perl
    # Runs commands for the host of this machine (yadori exec, shell, copy).
    use strict;
    use warnings;
    use POSIX qw(:sys_wait_h :signal_h);

    $SIG{PIPE} = 'IGNORE';
    my $port = \#(port);
    my ($vsock, $stream, $any, $host) = (40, 1, 0xFFFFFFFF, 2);
    socket(my $listener, $vsock, $stream, 0) or die "no sockets to the host: $!\n";
    bind($listener, pack('S S L L x4', $vsock, 0, $port, $any)) or die "port $port: $!\n";
    listen($listener, 128) or die "$!\n";
    $SIG{CHLD} = sub { 1 while waitpid(-1, WNOHANG) > 0 };
    while (1) {
      my $peer = accept(my $connection, $listener) or next;
      # Programs of this machine could connect, too.
      next if (unpack('S S L L', $peer))[3] != $host;
      my $child = fork;
      next if !defined $child || $child;
      $SIG{CHLD} = 'DEFAULT';
      close $listener;
      serve($connection);
      POSIX::_exit(0);
    }

    sub put {
      my ($socket, $letter, $bytes) = @_;
      my $frame = pack('a N', $letter, length $bytes) . $bytes;
      while (length $frame) {
        my $count = syswrite($socket, $frame);
        next if !defined $count && $!{EINTR};
        # The host has gone away.
        return 0 if !defined $count;
        substr($frame, 0, $count) = '';
      }
      return 1;
    }

    # Takes the next frame out of what was read.
    sub take {
      my ($buffer) = @_;
      return if length $$buffer < 5;
      my ($letter, $count) = unpack('a N', $$buffer);
      return if length $$buffer < 5 + $count;
      my $bytes = substr($$buffer, 5, $count);
      substr($$buffer, 0, 5 + $count) = '';
      return ($letter, $bytes);
    }

    sub serve {
      my ($socket) = @_;
      # Whoever started this may have blocked some.
      sigprocmask(SIG_SETMASK, POSIX::SigSet->new);
      my ($buffer, $letter, $request) = ('');
      while (!(($letter, $request) = take(\$buffer))) {
        my $count = sysread($socket, $buffer, 65536, length $buffer);
        next if !defined $count && $!{EINTR};
        return if !$count;
      }
      my (%request, @arguments, @environment);
      for my $word (split /\0/, $request) {
        my ($key, $value) = split /=/, $word, 2;
        if ($key eq 'argument') { push @arguments, $value }
        elsif ($key eq 'environment') { push @environment, $value }
        else { $request{$key} = $value }
      }
      # A machine that was paused or restored may be behind. clock_settime
      if (my $time = $request{time}) { syscall(112, 0, pack('q q', $time, 0)) if abs($time - time) > 2 }
      return identify($socket, \%request) if $request{identity};
      my @user = getpwnam($request{user} // 'root');
      return put($socket, 'F', "there is no user '$request{user}' in the guest") if !@user;
      run($socket, $buffer, \%request, \@arguments, \@environment, \@user);
    }

    sub spew {
      my ($path, $text, $mode) = @_;
      unlink $path;
      my $file;
      sysopen($file, $path, 0301, $mode) && syswrite($file, $text) == length $text && close $file
        or die "can't write $path: $!\n";
    }

    sub names {
      my ($folder) = @_;
      opendir(my $handle, $folder) or return;
      return readdir $handle;
    }

    # Makes another machine of this one: what follows from random numbers comes after them.
    sub identify {
      my ($socket, $request) = @_;
      eval {
        my $name = $request->{name};
        my $random;
        open($random, '+<', '/dev/urandom') && syswrite($random, pack('H*', $request->{entropy}))
          or die "no random numbers: $!\n";
        # RNDRESEEDCRNG
        ioctl($random, 0x5207, 0);
        spew('/etc/hostname', "$name\n", 0644);
        # sethostname
        syscall(161, $name, length $name);
        if (open(my $hosts, '<', '/etc/hosts')) {
          my $text = join '', <$hosts>;
          spew('/etc/hosts', $text, 0644) if $text =~ s/^127\.0\.1\.1.*/127.0.1.1 $name/m;
        }
        spew('/etc/machine-id', "$request->{machine}\n", 0444);
        if (-d '/etc/ssh' && defined $request->{key}) {
          unlink map { "/etc/ssh/$_" } grep { /^ssh_host_/ } names('/etc/ssh');
          spew('/etc/ssh/ssh_host_ed25519_key', $request->{key}, 0600);
          spew('/etc/ssh/ssh_host_ed25519_key.pub', $request->{public}, 0644);
          # The server reads its keys again.
          if (open(my $file, '<', '/run/sshd.pid')) { kill('HUP', $1) if <$file> =~ /(\d+)/ }
        }
        readdress($request->{card}) if length $request->{card};
        1;
      } or do {
        chomp(my $why = $@);
        return put($socket, 'F', $why);
      };
      put($socket, 'B', '');
      put($socket, 'X', pack('N', 0));
    }

    # Gives the network card its address, which some take only while they are down.
    sub readdress {
      my ($address) = @_;
      my ($card) = grep { /^e/ } names('/sys/class/net') or return;
      my $bytes = pack('H2' x 6, split /:/, $address);
      socket(my $socket, 2, 2, 0) or return;
      # SIOCSIFHWADDR, SIOCGIFFLAGS, SIOCSIFFLAGS
      return if ioctl($socket, 0x8924, pack('a16 S a6 x16', $card, 1, $bytes));
      my $request = pack('a16 x24', $card);
      ioctl($socket, 0x8913, $request) or return;
      my $flags = (unpack('a16 S', $request))[1];
      ioctl($socket, 0x8914, pack('a16 S x22', $card, $flags & ~1));
      ioctl($socket, 0x8924, pack('a16 S a6 x16', $card, 1, $bytes));
      ioctl($socket, 0x8914, pack('a16 S x22', $card, $flags));
    }

    sub run {
      my ($socket, $buffer, $request, $arguments, $environment, $user) = @_;
      my ($terminal, $line, $input, $output, $errors, @theirs);
      if ($request->{terminal}) {
        open($terminal, '+<', '/dev/ptmx') or return put($socket, 'F', "no terminal in the guest: $!");
        my $number = pack('i', 0);
        # TIOCSPTLCK, TIOCGPTN
        ioctl($terminal, 0x40045431, $number) && ioctl($terminal, 0x80045430, $number)
          or return put($socket, 'F', "no terminal in the guest: $!");
        $line = '/dev/pts/' . unpack('i', $number);
        resize($terminal, $request->{size}) if $request->{size};
        chown $user->[2], -1, $line;
      } else {
        pipe($theirs[0], $input) && pipe($output, $theirs[1]) && pipe($errors, $theirs[2])
          or return put($socket, 'F', "no pipes in the guest: $!");
      }
      pipe(my $status, my $report) or return put($socket, 'F', "no pipes in the guest: $!");
      my $program = fork;
      return put($socket, 'F', "no process in the guest: $!") if !defined $program;
      if (!$program) {
        $SIG{PIPE} = 'DEFAULT';
        my $why = begin($line, \@theirs, $request, $arguments, $environment, $user);
        syswrite($report, $why);
        POSIX::_exit(127);
      }
      close $_ for @theirs, $report;
      my $why = '';
      1 while sysread($status, $why, 4096, length $why) || $!{EINTR} && !($! = 0);
      if (length $why) {
        waitpid($program, 0);
        return put($socket, 'F', $why);
      }
      # pidfd_open: it can be read when the program has ended. A signal that comes right before a wait would be seen after it.
      my $ended = syscall(434, $program, 0);
      return kill('KILL', -$program) && put($socket, 'F', "the guest's kernel is too old: $!") if $ended < 0;
      put($socket, 'B', '') or return kill('HUP', -$program);
      $input = $output = $terminal if $terminal;
      relay($socket, $buffer, $program, $input, $output, $errors, $ended, $terminal);
    }

    # In the program's own process: all that comes before it. Returns why it can't be.
    sub begin {
      my ($line, $theirs, $request, $arguments, $environment, $user) = @_;
      my ($name, $uid, $gid, $home, $shell) = @{$user}[0, 2, 3, 7, 8];
      POSIX::setsid();
      if ($line) {
        # The first terminal that a session's leader opens becomes its own.
        open(my $slave, '+<', $line) or return "can't open $line: $!";
        POSIX::dup2(fileno $slave, $_) for 0 .. 2;
      } else {
        POSIX::dup2(fileno $theirs->[$_], $_) for 0 .. 2;
      }
      my @groups = ($gid);
      while (my @group = getgrent) { push @groups, $group[2] if grep { $_ eq $name } split ' ', $group[3] }
      $) = join ' ', $gid, @groups;
      POSIX::setgid($gid) or return "can't become $name: $!";
      POSIX::setuid($uid) or return "can't become $name: $!";
      my $path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
      %ENV = (PATH => $path, HOME => $home, USER => $name, LOGNAME => $name, SHELL => $shell, LANG => 'C.UTF-8');
      for (@$environment) {
        my ($key, $value) = split /=/, $_, 2;
        $ENV{$key} = $value;
      }
      my $folder = $request->{folder} // $home;
      chdir $folder or return "there is no folder '$folder' in the guest";
      no warnings 'exec';
      if (@$arguments) {
        exec { $arguments->[0] } @$arguments;
        return "can't run '$arguments->[0]' in the guest: $!";
      }
      my ($last) = $shell =~ m{([^/]*)$};
      exec { $shell } "-$last";
      return "can't run '$shell' in the guest: $!";
    }

    sub resize {
      my ($terminal, $size) = @_;
      my ($rows, $columns) = split / /, $size;
      # TIOCSWINSZ
      ioctl($terminal, 0x5414, pack('S4', $rows, $columns, 0, 0));
    }

    sub relay {
      my ($socket, $buffer, $program, $input, $output, $errors, $ended, $terminal) = @_;
      my ($pending, $hasEnded, $inputEnds, $outcome) = ('', 0, 0);
      for ($input, $output, $errors) { nonblocking($_) if $_ }
      while (1) {
        while (my ($letter, $bytes) = take(\$buffer)) {
          if ($letter eq 'I') { $pending .= $bytes if $input }
          elsif ($letter eq 'E') { $inputEnds = 1 }
          elsif ($letter eq 'W') { resize($terminal, $bytes) if $terminal }
          elsif ($letter eq 'S') { kill($bytes, -$program) }
        }
        # End of file, as a terminal's user says it.
        if ($inputEnds && $terminal) { $pending .= "\4"; $inputEnds = 0 }
        if ($inputEnds && $input && !length $pending) { close $input; undef $input }
        last if $hasEnded;
        my ($reading, $writing) = ('', '');
        for ($socket, $output, $errors) { vec($reading, fileno $_, 1) = 1 if $_ }
        vec($reading, $ended, 1) = 1;
        vec($writing, fileno $input, 1) = 1 if $input && length $pending;
        next if select($reading, $writing, undef, undef) < 0;
        if ($input && length $pending && vec($writing, fileno $input, 1)) {
          my $count = syswrite($input, $pending, 65536);
          if (defined $count) {
            substr($pending, 0, $count) = '';
            put($socket, 'C', pack('N', $count)) or last;
          } elsif (!$!{EAGAIN} && !$!{EINTR}) {
            # Nobody reads it; whoever sends it mustn't wait.
            put($socket, 'C', pack('N', length $pending)) or last;
            $pending = '';
            if (!$terminal) { close $input; undef $input }
          }
        }
        for ([\$output, 'O'], [\$errors, 'D']) {
          my ($file, $letter) = @$_;
          next if !$$file || !vec($reading, fileno $$file, 1);
          pass($socket, $file, $letter, 1) or return kill('HUP', -$program);
        }
        if (vec($reading, $ended, 1)) {
          waitpid($program, 0);
          $outcome = $?;
          $hasEnded = 1;
        }
        if (vec($reading, fileno $socket, 1)) {
          my $count = sysread($socket, $buffer, 65536, length $buffer);
          if (defined $count ? !$count : !$!{EINTR}) { last }
        }
      }
      return kill('HUP', -$program) if !$hasEnded;
      for ([\$output, 'O'], [\$errors, 'D']) { pass($socket, $_->[0], $_->[1], 1 << 20) if ${$_->[0]} }
      if (WIFSIGNALED($outcome)) { put($socket, 'K', pack('N', WTERMSIG($outcome))) }
      else { put($socket, 'X', pack('N', WEXITSTATUS($outcome))) }
      # Input that nobody has read would have the socket drop what stands in it; the host ends the connection.
      shutdown($socket, 1);
      alarm 10;
      1 while sysread($socket, $buffer, 65536);
    }

    # Hands on what a program has written, so many times; at its end $$file is undefined. False: the host is gone.
    sub pass {
      my ($socket, $file, $letter, $times) = @_;
      while ($times-- > 0) {
        my $count = sysread($$file, my $bytes, 65536);
        if (!$count) {
          return 1 if !defined $count && ($!{EAGAIN} || $!{EINTR});
          # A terminal's end is an error.
          undef $$file;
          return 1;
        }
        put($socket, $letter, $bytes) or return 0;
      }
      return 1;
    }

    sub nonblocking {
      my ($file) = @_;
      # F_GETFL, F_SETFL, O_NONBLOCK
      fcntl($file, 4, fcntl($file, 3, 0) | 04000);
    }

    """#
}
