import java.io.IOException;
import java.util.ArrayList;
import java.util.TreeMap;
import java.util.stream.IntStream;

/** Work [N]: compute in parallel and make garbage, and print a line a step: N of them, or until input ends. */
public class Work {
    private static volatile boolean ended;

    private static void readInput() {
        try {
            while (System.in.read() >= 0) { }
        } catch (IOException e) {
            System.err.println(e);
        }
        ended = true;
    }

    private static long step(long seed) {
        long sum = IntStream.range(0, 200000).parallel().mapToLong(i -> {
            long x = seed + i;
            x ^= x << 13;
            x ^= x >>> 7;
            return x ^ x << 17;
        }).sum();
        TreeMap<Long, ArrayList<String>> map = new TreeMap<>();
        for (int i = 0; i < 20000; i++)
            map.computeIfAbsent((sum + i) % 997, k -> new ArrayList<>()).add(Long.toHexString(sum * i));
        for (ArrayList<String> list : map.values())
            sum = sum * 31 + list.hashCode();
        return sum;
    }

    public static void main(String[] arguments) {
        int n = arguments.length > 0 ? Integer.parseInt(arguments[0]) : 0;
        Thread reader = new Thread(Work::readInput);
        reader.setDaemon(true);
        reader.start();
        long sum = 0;
        for (int k = 1; n > 0 ? k <= n : !ended; k++) {
            sum = step(sum);
            System.out.println("step " + k + " sum " + sum);
        }
    }
}
