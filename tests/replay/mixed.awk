# A mixed demand on 32 GPUs as a list of pods: six hours mostly slices, six hours more whole GPUs, one run
# for each -v N=jobs and -v G=mean seconds between them.
BEGIN {
  s = 20261124; m = 2147483648
  print "name,cpu,memory,gpu,gpu_milli,creation_time,deletion_time"
  t = 0
  for (i = 0; i < N; i++) {
    t += int(-G * log(1 - r()))
    k = r()
    phase = int(t / 21600) % 2   # six hours mostly small, six hours mostly large
    small = phase ? 0.35 : 0.80
    if (k < small) { g = 1; p = r() < 0.7 ? 140 : 285 }
    else if (k < small + (1 - small) * 0.5) { g = 1; p = 420 }
    else { g = 1; p = 1000 }
    d = int(-3600 * log(1 - r())) + 60
    printf "p%d,4,8000,%d,%d,%d,%d\n", i, g, p, t, t + d
  }
}
function r() { s = (s * 16807) % 2147483647; return s / 2147483647 }
