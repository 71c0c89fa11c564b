// SPDX-License-Identifier: GPL-2.0

import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** A pool of threads of a Java virtual machine. */
public class Pool {
    private static long work(long n) {
        for (int i = 0; i < 200_000; i++) {
            n = n * 6364136223846793005L + 1442695040888963407L;
        }
        return n;
    }

    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        for (int step = 0; step < 60; step++) {
            List<Future<Long>> all = new ArrayList<>();
            for (int n = 0; n < 8; n++) {
                final long seed = step * 8 + n;
                all.add(pool.submit(() -> work(seed)));
            }
            long sum = 0;
            for (Future<Long> one : all) {
                sum += one.get();
            }
            System.out.println(step + " " + sum);
            if (step == 5) {
                new File("works").createNewFile();
            }
            Thread.sleep(20);
        }
        pool.shutdown();
    }
}
