import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;

/**
 * Kafka's side of the comparison with our codec (run.sh). A line is "FOLDER NAME VERSION HEX", FOLDER and NAME as in proto/kafka.
 *
 *   Reread read         reads lines from stdin, reads HEX with Kafka's class and writes it again; "differs NAME VERSION WHY" for
 *                       each that differs, and a count at the end
 *   Reread write SEED   reads "FOLDER NAME" from stdin, fills Kafka's classes with random values as their own schemas allow them,
 *                       COUNT messages of each version, and prints their lines
 *   Reread defaults     reads "FOLDER NAME" from stdin and prints "NAME STRUCT.FIELD VALUE" of every field of a new object, in lower case
 */
public class Reread {
    private static final int COUNT = 150;
    private static final Map<String, String> PACKAGES = Map.of(
        "api", "org.apache.kafka.common.message",
        "header", "org.apache.kafka.common.message",
        "data", "org.apache.kafka.common.message",
        "metadata", "org.apache.kafka.common.metadata",
        "group", "org.apache.kafka.coordinator.group.generated",
        "transaction", "org.apache.kafka.coordinator.transaction.generated",
        "share", "org.apache.kafka.coordinator.share.generated",
        "storage", "org.apache.kafka.server.log.remote.metadata.storage.generated",
        "raft", "org.apache.kafka.raft.generated");

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        if (args.length == 2 && args[0].equals("write")) {
            writeAll(in, new Random(Long.parseLong(args[1])));
        } else if (args.length == 1 && args[0].equals("defaults")) {
            printDefaults(in);
        } else if (args.length == 1 && args[0].equals("read")) {
            System.exit(readAll(in));
        } else {
            System.exit(64);
        }
    }

    private static Class<?> classOf(String folder, String name) throws ClassNotFoundException {
        String suffix = folder.equals("api") || folder.equals("header") ? "Data" : "";
        return Class.forName(PACKAGES.get(folder) + "." + name + suffix);
    }

    private static String hexOf(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer out = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(out), cache, version);
        return HexFormat.of().formatHex(out.array(), 0, out.position());
    }

    // ------------------------------------------------------------------------------------------------ reading ours

    private static int readAll(BufferedReader in) throws IOException {
        int lines = 0;
        int wrong = 0;
        for (String line; (line = in.readLine()) != null; lines++) {
            String[] word = line.split(" ", 4);
            String why;
            try {
                why = reread(classOf(word[0], word[1]), Short.parseShort(word[2]), word[3]);
            } catch (ReflectiveOperationException | RuntimeException e) {
                why = e.toString();
            }
            if (why != null) {
                wrong++;
                System.out.println("differs " + word[1] + " " + word[2] + " " + why + " of " + word[3]);
            }
        }
        System.out.println(lines + " lines");
        return wrong > 0 || lines == 0 ? 1 : 0;
    }

    private static String reread(Class<?> type, short version, String hex) throws ReflectiveOperationException {
        Message message = (Message) type.getConstructor().newInstance();
        ByteBuffer in = ByteBuffer.wrap(HexFormat.of().parseHex(hex));
        message.read(new ByteBufferAccessor(in), version);
        if (in.hasRemaining()) {
            return in.remaining() + " bytes not read";
        }
        String again = hexOf(message, version);
        return again.equals(hex) ? null : "wrote " + again;
    }

    // ------------------------------------------------------------------------------------------------ defaults

    private static void printDefaults(BufferedReader in) throws IOException, ReflectiveOperationException {
        for (String line; (line = in.readLine()) != null; ) {
            String[] word = line.split(" ");
            Class<?> type = classOf(word[0], word[1]);
            printDefaults(word[1], word[1], type);
            for (Class<?> nested : type.getDeclaredClasses()) {
                if (Message.class.isAssignableFrom(nested)) {
                    printDefaults(word[1], nested.getSimpleName(), nested);
                }
            }
        }
    }

    private static void printDefaults(String message, String struct, Class<?> type) throws ReflectiveOperationException {
        Object made = type.getConstructor().newInstance();
        for (java.lang.reflect.Field field : type.getDeclaredFields()) {
            String name = field.getName();
            boolean isOfTheMessage = !name.startsWith("_") && !(field.getType() == int.class && (name.equals("next") || name.equals("prev")));
            if (!Modifier.isStatic(field.getModifiers()) && isOfTheMessage) {
                field.setAccessible(true);
                // Kafka leaves records null until they are set, and always sets them; ours begin empty, so that none is forgotten.
                String value = field.getType().getSimpleName().equals("BaseRecords") ? "empty" : described(field.get(made));
                System.out.println(message + " " + (struct + "." + name).toLowerCase(Locale.ROOT) + " " + value);
            }
        }
    }

    private static String described(Object value) {
        if (value == null) {
            return "null";
        } else if (value instanceof Number || value instanceof Boolean) {
            return value.toString();
        } else if (value instanceof Uuid) {
            return value.equals(Uuid.ZERO_UUID) ? "empty" : "set";
        } else if (value instanceof byte[] bytes) {
            return bytes.length == 0 ? "empty" : "set";
        } else if (value instanceof ByteBuffer bytes) {
            return bytes.hasRemaining() ? "set" : "empty";
        } else if (value instanceof String text) {
            return text.isEmpty() ? "empty" : "set";
        } else if (value instanceof Collection<?> elements) {
            return elements.isEmpty() ? "empty" : "set";
        }
        return "empty";
    }

    // ------------------------------------------------------------------------------------------------ writing Kafka's

    private static void writeAll(BufferedReader in, Random random) throws IOException, ReflectiveOperationException {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line; (line = in.readLine()) != null; ) {
            String[] word = line.split(" ");
            Class<?> type = classOf(word[0], word[1]);
            Schema[] schemas = (Schema[]) type.getField("SCHEMAS").get(null);
            short last = type.getField("HIGHEST_SUPPORTED_VERSION").getShort(null);
            for (short v = type.getField("LOWEST_SUPPORTED_VERSION").getShort(null); v <= last; v++) {
                for (int i = 0; i < COUNT; i++) {
                    Message message = (Message) filled(type, schemas[v], random, 0);
                    out.println(line + " " + v + " " + hexOf(message, v));
                }
            }
        }
        out.flush();
    }

    /** A new object of the class with every field of the schema set, left alone now and then. */
    private static Object filled(Class<?> type, Schema schema, Random random, int depth) throws ReflectiveOperationException {
        Object made = type.getConstructor().newInstance();
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields tagged) {
                for (Field inner : tagged.fields().values()) {
                    fillField(made, inner, random, depth);
                }
            } else {
                fillField(made, field.def, random, depth);
            }
        }
        return made;
    }

    private static void fillField(Object of, Field field, Random random, int depth) throws ReflectiveOperationException {
        Method setter = setterOf(of.getClass(), field.name);
        int roll = random.nextInt(100);
        if (field.type.isNullable() && roll < 15) {
            setter.invoke(of, new Object[] {null});
        } else if (roll >= 35 || !isWritable(of, field)) {
            setter.invoke(of, value(field.type, setter.getGenericParameterTypes()[0], random, depth));
        }
    }

    /** Whether what a new object has in the field can be written: null cannot where the schema has no null. */
    private static boolean isWritable(Object of, Field field) throws ReflectiveOperationException {
        for (Method m : of.getClass().getMethods()) {
            if (m.getParameterCount() == 0 && isNamed(m.getName(), field.name)) {
                return field.type.isNullable() || m.invoke(of) != null;
            }
        }
        throw new NoSuchMethodException(of.getClass() + " " + field.name);
    }

    private static boolean isNamed(String name, String schemaName) {
        return name.equalsIgnoreCase(schemaName.replace("_", ""));
    }

    private static Method setterOf(Class<?> type, String schemaName) throws NoSuchMethodException {
        for (Method m : type.getMethods()) {
            if (m.getName().startsWith("set") && m.getParameterCount() == 1 && isNamed(m.getName().substring(3), schemaName)) {
                return m;
            }
        }
        throw new NoSuchMethodException(type + " " + schemaName);
    }

    private static Object value(Type schema, java.lang.reflect.Type javaType, Random random, int depth)
            throws ReflectiveOperationException {
        Class<?> type = javaType instanceof ParameterizedType p ? (Class<?>) p.getRawType() : (Class<?>) javaType;
        if (Collection.class.isAssignableFrom(type)) {
            return collection(schema, javaType, type, random, depth);
        } else if (schema instanceof Schema nested) {
            return filled(type, nested, random, depth + 1);
        }
        return scalar(schema, type, random);
    }

    @SuppressWarnings("unchecked")
    private static Object collection(Type schema, java.lang.reflect.Type javaType, Class<?> type, Random random, int depth)
            throws ReflectiveOperationException {
        Collection<Object> made = (Collection<Object>) (type == List.class ? new ArrayList<>() : type.getConstructor().newInstance());
        java.lang.reflect.Type element = ((ParameterizedType) (type == List.class ? javaType : type.getGenericSuperclass()))
            .getActualTypeArguments()[0];
        int count = random.nextInt(depth > 2 ? 3 : 4);
        for (int i = 0; i < count; i++) {
            made.add(value(schema.arrayElementType().get(), element, random, depth));
        }
        return made;
    }

    private static long number(Random random) {
        long[] edges = {0, 1, -1, 127, -128, 255, 32767, -32768, 65535, Integer.MAX_VALUE, Integer.MIN_VALUE, Long.MAX_VALUE};
        return random.nextInt(3) == 0 ? edges[random.nextInt(edges.length)] : random.nextLong();
    }

    private static byte[] bytes(Random random) {
        int[] sizes = {0, 1, 2, 3, 5, 8, 13, 126, 127, 128, 300};
        byte[] made = new byte[sizes[random.nextInt(random.nextInt(4) == 0 ? sizes.length : 7)]];
        random.nextBytes(made);
        return made;
    }

    private static String text(Random random) {
        String[] letters = {"a", "b", "Z", "0", "-", "\u00e9", "\u6f22", "\ud83d\ude00"};
        StringBuilder made = new StringBuilder();
        for (int n = bytes(random).length; n > 0; n--) {
            made.append(letters[random.nextInt(letters.length)]);
        }
        return made.toString();
    }

    private static Object scalar(Type schema, Class<?> type, Random random) {
        long n = number(random);
        if (type == boolean.class) {
            return random.nextBoolean();
        } else if (type == byte.class) {
            return (byte) n;
        } else if (type == short.class) {
            return (short) n;
        } else if (type == int.class) {
            return schema == Type.UINT16 ? (int) (n & 0xffff) : (int) n;
        } else if (type == long.class) {
            return schema == Type.UNSIGNED_INT32 ? n & 0xffffffffL : n;
        } else if (type == double.class) {
            return random.nextInt(3) == 0 ? 0.0 : random.nextGaussian();
        } else if (type == Uuid.class) {
            return random.nextInt(4) == 0 ? Uuid.ZERO_UUID : new Uuid(n, random.nextLong());
        } else if (type == String.class) {
            return text(random);
        } else if (type == byte[].class) {
            return bytes(random);
        } else if (type == ByteBuffer.class) {
            return ByteBuffer.wrap(bytes(random));
        } else if (type.getSimpleName().equals("BaseRecords")) {
            return records(type, bytes(random));
        } else if (type == Object.class || type == Short.class) {
            return (short) n;
        }
        return boxed(type, n, random);
    }

    /** Elements of lists. */
    private static Object boxed(Class<?> type, long n, Random random) {
        if (type == Integer.class) {
            return (int) n;
        } else if (type == Byte.class) {
            return (byte) n;
        } else if (type == Long.class) {
            return n;
        }
        throw new IllegalArgumentException("no values of " + type);
    }

    /** Records stand in a package of Kafka's that moves between releases. */
    private static Object records(Class<?> type, byte[] bytes) {
        try {
            return Class.forName(type.getPackageName() + ".MemoryRecords").getMethod("readableRecords", ByteBuffer.class)
                .invoke(null, ByteBuffer.wrap(bytes));
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }
}
