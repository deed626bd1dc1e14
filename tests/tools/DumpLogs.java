import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.apache.kafka.tools.DumpLogSegments;

/** Kafka's dump-log many times in one JVM: each line of the input is a command line, its words separated by tabs. What the tool says,
 *  an exception with its trace, too, goes to the standard output, and a line "end of dump" behind it.
 *  Run by `tests/tools/kafka run tests/tools/DumpLogs.java`. */
public class DumpLogs {
    public static void main(String[] arguments) throws Exception {
        System.setErr(System.out);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                DumpLogSegments.main(line.split("\t"));
            } catch (Throwable error) {
                error.printStackTrace();
            }
            System.out.println("end of dump");
            System.out.flush();
        }
    }
}
