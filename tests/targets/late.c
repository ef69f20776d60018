/* Installs its SIGHUP handler late, and notes each signal. Usage: late MILLISECONDS NOTES; fewer than 0 is never. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char *notes;

static void note(int number) {
  (void)number;
  int file = open(notes, O_WRONLY | O_APPEND | O_CREAT, 0644);
  (void)!write(file, "hup\n", 4);
  close(file);
}

int main(int count, char **arguments) {
  (void)count;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  notes = arguments[2];
  if (atoi(arguments[1]) >= 0) {
    usleep(atoi(arguments[1]) * 1000);
    signal(SIGHUP, note);
  }
  for (;;)
    pause();
}
