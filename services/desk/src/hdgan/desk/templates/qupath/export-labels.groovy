// Run after labelling and saving: Automate > Project scripts... > export-labels, then Run.
//
// Writes the annotations of every image to labels/<split>-<id>.geojson, with the id of the image
// inside, so that the import knows whose they are. An image without annotations keeps its file.
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import qupath.lib.io.GsonTools
import qupath.lib.objects.PathObject
import static qupath.lib.gui.scripting.QPEx.*

def project = getProject()
if (project == null) {
    println 'Open project.qpproj first'
    return
}
def folder = new File(buildFilePath(PROJECT_BASE_DIR, 'labels'))
folder.mkdirs()
def gson = GsonTools.getInstance(true)
def shown = getProjectEntry()
int written = 0
for (entry in project.getImageList()) {
    def candidate = entry.getMetadataValue('hdgan-candidate')
    if (candidate == null)
        continue
    def name = entry.getMetadataValue('split') + '-' + candidate
    // What is on the screen counts even where it was not saved.
    def isShown = shown != null && shown.getID() == entry.getID()
    def hierarchy = isShown ? getCurrentHierarchy() : entry.readHierarchy()
    def annotations = hierarchy.getAnnotationObjects()
    if (annotations.isEmpty()) {
        println name + ': no annotations, its file is left as it is'
        continue
    }
    def unclassified = annotations.findAll { it.getPathClass() == null }.size()
    if (unclassified > 0)
        println name + ': ' + unclassified + ' annotations have no class: set one, and run this again'
    def properties = ['hdgan-candidate': candidate, 'image': name + '.png']
    def features = annotations.collect { gson.toJson(it, PathObject.class) }
    def text = '{"type": "FeatureCollection",\n"properties": ' + gson.toJson(properties) +
        ',\n"features": [' + features.join(',\n') + ']}\n'
    def unfinished = new File(folder, '.' + name + '.part').toPath()
    def target = new File(folder, name + '.geojson').toPath()
    Files.writeString(unfinished, text)
    Files.move(unfinished, target, StandardCopyOption.REPLACE_EXISTING)
    written++
}
println written + ' images written to ' + folder
