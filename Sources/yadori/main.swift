import Commands
import Glibc

// Whoever starts this program from a thread that signals don't reach passes that on.
var none = sigset_t()
sigemptyset(&none)
sigprocmask(SIG_SETMASK, &none, nil)
BackgroundMachine.prepare()
Root.execute()
