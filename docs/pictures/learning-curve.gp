# Learning curves of docs/method.md, "How much the tokens support": gnuplot docs/pictures/learning-curve.gp
$curve << END
4   2.0941 0.5483 0.1255
8   1.7807 0.4561 0.1075
16  1.6264 0.4325 0.0976
32  1.5270 0.3912 0.0892
64  1.3583 0.3614 0.0833
128 1.3166 0.3515 0.0798
END
$smollm2 << END
4   12.884 0.6926 0.2248
8   12.161 0.6036 0.1835
16  8.533  0.5178 0.1512
32  3.974  0.4432 0.1281
64  1.698  0.3979 0.1062
128 1.500  0.3630 0.0975
END
set terminal svg size 680,380 font "sans-serif,13" background "white"
set output "docs/pictures/learning-curve.svg"
set logscale xy
set xrange [3.4:180]
set yrange [0.07:3]
set xtics (4, 8, 16, 32, 64, 128)
set ytics (0.1, 0.2, 0.5, 1, 2)
set grid
set xlabel "calibration sequences of 256 tokens"
set ylabel "KL, nats per token"
set key outside right center
plot $curve using 1:2 with linespoints lw 2 pt 5 lc rgb "black" title "2 bits", \
     $curve using 1:3 with linespoints lw 2 dt 2 pt 7 lc rgb "gray30" title "3 bits", \
     $curve using 1:4 with linespoints lw 2 dt 4 pt 9 lc rgb "gray50" title "4 bits"

set output "docs/pictures/learning-curve-smollm2.svg"
set xrange [3.4:180]
set yrange [0.09:16]
set ytics (0.1, 0.2, 0.5, 1, 2, 5, 10)
set xlabel "calibration sequences of 128 tokens"
plot $smollm2 using 1:2 with linespoints lw 2 pt 5 lc rgb "black" title "2 bits", \
     $smollm2 using 1:3 with linespoints lw 2 dt 2 pt 7 lc rgb "gray30" title "3 bits", \
     $smollm2 using 1:4 with linespoints lw 2 dt 4 pt 9 lc rgb "gray50" title "4 bits"
